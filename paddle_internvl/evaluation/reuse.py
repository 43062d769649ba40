"""Predictions of VLMEvalKit that a run begins with (`--reuse`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.evaluation.answers import PREDICTION_ENDINGS, AnswerError, read_answers
from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.run_files import Row

_FAILED = "Failed to obtain answer"  # VLMEvalKit's mark of a row that is asked again


def reused_rows(source: Path, model: str, benchmark: Benchmark, items: Sequence[Item]) -> list[Row]:
    """Rows of a prediction file; rows that failed are left out.

    Args:
        source: the file, or a folder with `<model>_<benchmark>` in it.
        model: name in the file's name.
        benchmark: of the predictions.
        items: of the benchmark.
    Raises:
        AnswerError: there is no such file, or it can't be read.
    """
    files = [source.joinpath(f"{model}_{benchmark.name}{ending}") for ending in PREDICTION_ENDINGS]
    file = source if source.is_file() else next((file for file in files if file.is_file()), None)
    if file is None:
        raise AnswerError(f"{source}: no {files[0].name} (or {', '.join(PREDICTION_ENDINGS[1:])}) to be reused")
    answers = read_answers(file)
    found = [(item.index, answers[str(item.index)]) for item in items if str(item.index) in answers]
    return [Row(index, "", answer, answer, None) for index, answer in found if _FAILED not in answer]
