"""Comparison of two runs row by row: which verdicts differ, and McNemar's exact test of the difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paddle_internvl.evaluation.run_scores import RunScores
from paddle_internvl.evaluation.table import Table


@dataclass(frozen=True)
class Flip:
    """A row on which two runs have different verdicts.

    Attributes:
        index: of the row, as text.
        first: verdict of the first run.
        second: verdict of the second run.
    """

    index: str
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """Two runs on one benchmark.

    Attributes:
        benchmark: name.
        rows: with a verdict in both runs.
        unpaired: rows with a verdict in one of the runs only; they are left out.
        first: mean verdict of the first run on the rows, in per cent.
        second: mean verdict of the second run on the rows, in per cent.
        flips: rows with different verdicts, in the order of the first run.
        p_value: McNemar's exact two-sided test.
    """

    benchmark: str
    rows: int
    unpaired: int
    first: float
    second: float
    flips: tuple[Flip, ...]
    p_value: float

    @property
    def better(self) -> int:
        """Rows on which the second run has the higher verdict."""
        return sum(flip.second > flip.first for flip in self.flips)

    @property
    def worse(self) -> int:
        """Rows on which the second run has the lower verdict."""
        return len(self.flips) - self.better


def mcnemar(better: int, worse: int) -> float:
    """p-value of McNemar's exact two-sided test: the chance of counts as unequal, if both ways were equally likely.

    Args:
        better: rows that only the second of two models has right.
        worse: rows that only the first has right.
    """
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**count)


def compare_runs(first: RunScores, second: RunScores, names: Sequence[str] | None = None) -> list[Comparison]:
    """Compare two runs on the benchmarks of both.

    Verdicts between 0 and 1 (ANLS, judged scores) count as better or worse only; the test is the sign test then.

    Args:
        first: scores.
        second: scores.
        names: benchmarks; None: all that both have.
    Raises:
        ValueError: no common benchmark, a run without one of the names, or scores by different rules.
    """
    names = names or [name for name in first.documents if name in second.documents]
    if not names:
        raise ValueError(f"{first.folder} and {second.folder} have no benchmark in common")
    for name, run in ((name, run) for name in names for run in (first, second)):
        if name not in run.documents:
            raise ValueError(f"{run.folder} has no {run.model}_{name}.score.json")
    return [_compare(name, first.documents[name], second.documents[name]) for name in names]


def _compare(name: str, first: Mapping, second: Mapping) -> Comparison:
    if first["rules"] != second["rules"]:
        raise ValueError(f"{name} is scored by the rules {first['rules']} and {second['rules']}; score both by one")
    verdicts = [
        {index: row["verdict"] for index, row in document["rows"].items() if row["verdict"] is not None}
        for document in (first, second)
    ]
    common = [index for index in verdicts[0] if index in verdicts[1]]
    pairs = [(index, verdicts[0][index], verdicts[1][index]) for index in common]
    flips = tuple(Flip(*pair) for pair in pairs if pair[1] != pair[2])
    better = sum(flip.second > flip.first for flip in flips)
    means = [100 * sum(pair[i] for pair in pairs) / len(pairs) if pairs else 0.0 for i in (1, 2)]
    unpaired = len(verdicts[0]) + len(verdicts[1]) - 2 * len(common)
    return Comparison(name, len(common), unpaired, *means, flips, mcnemar(better, len(flips) - better))


def comparison_table(first: RunScores, second: RunScores, comparisons: Sequence[Comparison]) -> Table:
    """Table of a comparison, a row for each benchmark."""
    rows = tuple(
        (
            one.benchmark, str(one.rows), f"{one.first:.2f}", f"{one.second:.2f}", f"{one.second - one.first:+.2f}",
            str(one.better), str(one.worse), f"{one.p_value:.4f}",
        )
        for one in comparisons
    )  # fmt: skip
    header = ("Benchmark", "rows", f"A {first.model}", f"B {second.model}", "B - A", "B better", "B worse", "p")
    notes = [
        f"{one.benchmark}: {one.unpaired} rows have a verdict in one run only and are left out"
        for one in comparisons
        if one.unpaired
    ]
    notes += ["A, B: mean verdict of the rows in per cent; p: McNemar's exact test, two-sided"]
    return Table(f"{first.model} and {second.model}", header, rows, tuple(notes))
