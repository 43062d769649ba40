"""`score`: answers to a benchmark -> its scores, headline and a verdict on every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from paddle_internvl.evaluation.answers import read_answers
from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.readers import default_rules, read_items
from paddle_internvl.evaluation.scorers import SCORERS
from paddle_internvl.evaluation.user_benchmarks import find_benchmark


def score(
    name: str | Benchmark,
    data: str | Path,
    answers: str | Path | Mapping[Index, str],
    rules: str | None = None,
    judge: Judge | None = None,
) -> dict:
    """Score answers to a benchmark.

    Args:
        name: of the benchmark, or its row.
        data: file or folder of the benchmark.
        answers: by index, or a file of them (`read_answers`).
        rules: "vlmevalkit" (December 2024, text kept) or "internvl" (upstream's scripts); None: the toolkit whose
            format the data has.
        judge: decides rows that rules can't; None: the rules alone.
    Returns:
        `benchmark`, `rules`, `scores` ("ROW/COLUMN": per cent), `headline` (None where rows have no answer, or no
        honest figure can be given), `scored` and `expected` (rows with an answer, rows of the data), `rows` (index ->
        `verdict`, `extracted`) and `notes`; with a judge, `judge`: its `model` and counts (`JudgeCounts`).
    Raises:
        ValueError: an unknown benchmark, rules that it has no scorer for, or answers to other rows; see also
            `read_items`, `read_answers`.
    """
    benchmark = name if isinstance(name, Benchmark) else find_benchmark(name)
    rules = rules or default_rules(benchmark, Path(data))
    texts = answers if isinstance(answers, Mapping) else read_answers(Path(answers))
    return score_items(benchmark, list(read_items(benchmark, data, rules, pictures=False)), texts, rules, judge)


def score_items(
    benchmark: Benchmark, items: Sequence[Item], answers: Mapping[Index, str], rules: str, judge: Judge | None = None
) -> dict:
    """Score answers to items of a benchmark. Arguments, result and errors: see `score`."""
    require_scorer(benchmark, rules)
    by_key = {str(index): text for index, text in answers.items()}
    unknown = by_key.keys() - {str(item.index) for item in items}
    if items and by_key and len(unknown) == len(by_key):
        raise ValueError(f"no answer is of a row of the data, e.g. that of index {next(iter(by_key))!r}")
    answered = {item.index: by_key[str(item.index)] for item in items if str(item.index) in by_key}
    earlier = judge and asdict(judge.counts)
    scores = SCORERS[benchmark.scorers[rules]](items, answered, judge)
    partial = len(answered) < len(items)
    notes = [*scores.notes, *([f"{len(unknown)} answers are of no row of the data"] if unknown else [])]
    if items and not scores.notes and all(item.answer is None for item in items) and scores.headline is None:
        notes.append("the data has no reference answers")
    return {
        "benchmark": benchmark.name,
        "rules": rules,
        "scores": {f"{row}/{column}": value for (row, column), value in scores.table.items()},
        "headline": None if partial else scores.headline,
        "scored": len(answered),
        "expected": len(items),
        "rows": {
            str(index): {"verdict": row.verdict, "extracted": row.extracted} for index, row in scores.rows.items()
        },
        "notes": notes,
        **({"judge": _costs(judge, earlier)} if judge else {}),
    }


def _costs(judge: Judge, earlier: Mapping[str, int]) -> dict:
    """Name of a judge, and its replies, failures and tokens since earlier counts."""
    return {"model": judge.model, **{name: count - earlier[name] for name, count in asdict(judge.counts).items()}}


def require_scorer(benchmark: Benchmark, rules: str) -> None:
    """Check that answers to a benchmark can be scored by rules.

    Raises:
        ValueError: they can't; names the rules that can.
    """
    if rules not in benchmark.scorers:
        raise ValueError(f"{benchmark.name} has no scorer by the rules {rules!r}; use {' or '.join(benchmark.scorers)}")
