"""Scores: what a scorer returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge


@dataclass(frozen=True)
class Verdict:
    """Verdict on one row.

    Attributes:
        verdict: 1 right, 0 wrong, or a score between (MMBench-Video: a rating from 0 to 3); None for a row that has
            no verdict of its own (further passes of a circular question, rows without an answer).
        extracted: the letter, label, number or box that was read from the answer; None where nothing was found.
    """

    verdict: float | None
    extracted: str | None = None

    @classmethod
    def of_equality(cls, extracted: str | None, reference: str | None) -> "Verdict":
        """Verdict on a value that is right where it equals the reference; none where one of the two is missing."""
        complete = extracted is not None and reference is not None
        return cls(float(extracted == reference) if complete else None, extracted)


@dataclass(frozen=True)
class Scores:
    """Scores of one benchmark.

    Attributes:
        table: per cent (points for MME, OCRBench; 0 to 3 for MMBench-Video) by (row, column) of VLMEvalKit's score
            table. The row is the split, "none" where the file has no split.
        headline: the figure that the cards print; None where no honest figure can be given.
        rows: verdict on every item, by index.
        notes: what a reader of the figure has to know ("rule-based: no judge", "2 verdicts failed").
    """

    table: Mapping[tuple[str, str], float]
    headline: float | None
    rows: Mapping[Index, Verdict]
    notes: tuple[str, ...] = ()


Scorer = Callable[[Sequence[Item], Mapping[Index, str], Judge | None], Scores]
