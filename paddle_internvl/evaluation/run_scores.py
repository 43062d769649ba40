"""Scores of runs: the score files of a model's folder, and the figure that each column of a card gets from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.evaluation.answers import PREDICTION_ENDINGS, read_answers
from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.published import Column
from paddle_internvl.jsonl import read_objects

_ENDING = ".score.json"


@dataclass(frozen=True)
class RunScores:
    """Score documents of a model.

    Attributes:
        model: name in the files' names.
        folder: of the files.
        documents: by benchmark, the document of `eval score --json`.
    """

    model: str
    folder: Path
    documents: Mapping[str, dict]


@dataclass(frozen=True)
class Figure:
    """Figure of a run for a benchmark or a column of a card.

    Attributes:
        value: in the card's unit; None of a partial run, and where no honest figure can be given.
        scored: rows with an answer.
        expected: rows of the benchmark.
        sources: benchmarks.
        rules: of the scorers.
        notes: of the scorers, and of rules and sources that are not the card's.
    """

    value: float | None
    scored: int
    expected: int
    sources: tuple[str, ...]
    rules: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether rows of the benchmark have no answer."""
        return self.scored < self.expected


def read_runs(paths: Sequence[Path]) -> list[RunScores]:
    """Scores of runs, a run for each model.

    Args:
        paths: folders of `<model>_<benchmark>.score.json`, or folders of them, or single files.
    Raises:
        ValueError: a path has no score file, or a file is no document of `eval score`.
    """
    runs: dict[tuple[str, Path], dict[str, dict]] = {}
    for path in paths:
        files = [path] if path.is_file() else sorted(path.glob(f"*{_ENDING}")) or sorted(path.glob(f"*/*{_ENDING}"))
        if not files:
            raise ValueError(f"{path} has no *{_ENDING}; eval run writes them, and eval score with --out")
        for file in files:
            document = _read(file)
            model = file.name.removesuffix(_ENDING).removesuffix(f"_{document['benchmark']}")
            runs.setdefault((model, file.parent), {})[document["benchmark"]] = document
    return [RunScores(model, folder, documents) for (model, folder), documents in runs.items()]


def one_run(path: Path) -> RunScores:
    """Scores of the one model of a folder.

    Raises:
        ValueError: the folder has the scores of several models, or none.
    """
    runs = read_runs([path])
    if len(runs) > 1:
        raise ValueError(f"{path} has runs of {', '.join(run.model for run in runs)}; name the folder of one")
    return runs[0]


def _read(file: Path) -> dict:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    missing = {"benchmark", "rules", "scores", "headline", "scored", "expected", "rows"} - set(document)
    if missing:
        raise ValueError(f"{file} is no document of eval score: it has no {', '.join(sorted(missing))}")
    return document


def answers_of(run: RunScores, benchmark: str) -> dict[str, dict]:
    """Answers of a run by index as text: `prompt`, `answer`, `prediction` of its journal, `<model>_<benchmark>.jsonl`.

    Where there is no journal: `answer` of VLMEvalKit's file of that name (.xlsx, .tsv, .json); {} where there is none.
    """
    lines = {str(line["index"]): line for line in read_objects(run.folder / f"{run.model}_{benchmark}.jsonl")}
    files = (run.folder / f"{run.model}_{benchmark}{ending}" for ending in PREDICTION_ENDINGS)
    file = None if lines else next(filter(Path.is_file, files), None)
    return lines if file is None else {index: {"answer": text} for index, text in read_answers(file).items()}


def benchmark_figure(run: RunScores, source: str) -> Figure:
    """Figure of a benchmark of a run: its headline, or the cell of BENCHMARK:ROW/COLUMN."""
    name, _, cell = source.partition(":")
    document = run.documents[name]
    value = _cells(document).get(cell.lower()) if cell else document["headline"]
    published = BENCHMARKS[name].rows if name in BENCHMARKS else None
    expected = max(document["expected"], published or 0)
    notes = tuple(f"{name}: {note}" for note in document.get("notes", ()))
    if document["scored"] < expected:
        value = None
    return Figure(value, document["scored"], expected, (source,), (document["rules"],), notes)


def column_figure(run: RunScores, column: Column) -> Figure | None:
    """Figure of a run for a column of a card; None where the run has not the column's benchmarks."""
    for sources in column.sources:
        if all(_has(run, source) for source in sources):
            break
    else:
        return None
    parts = [benchmark_figure(run, source) for source in sources]
    values = [part.value for part in parts]
    rules = tuple(dict.fromkeys(part.rules[0] for part in parts))
    notes = [note for part in parts for note in part.notes]
    if sources != column.sources[0]:
        notes.append(f"{column.name} is of {', '.join(sources)}; the card's is of {', '.join(column.sources[0])}")
    if rules != (column.rules,):
        notes.append(f"{column.name} is by the rules {', '.join(rules)}; the card's is by the rules {column.rules}")
    return Figure(
        None if None in values else column.factor * sum(values) / len(values),
        sum(part.scored for part in parts), sum(part.expected for part in parts), sources, rules, tuple(notes),
    )  # fmt: skip


def _has(run: RunScores, source: str) -> bool:
    name, _, cell = source.partition(":")
    return name in run.documents and (not cell or cell.lower() in _cells(run.documents[name]))


def _cells(document: Mapping) -> dict[str, float]:
    """Score table by lower-case ROW/COLUMN: upstream's split refcoco_val is VLMEvalKit's RefCOCO_val."""
    return {name.lower(): value for name, value in document["scores"].items()}
