"""BENCHMARKS: one row per benchmark of the model cards."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Benchmark:
    """One row of the table of benchmarks.

    Attributes:
        name: VLMEvalKit's name of the data set (`--data`).
        question_type: VLMEvalKit's type, which decides the text around a question: MCQ, Y/N, VQA, VIDEO, GROUNDING
            or CAPTION.
        max_num: most tiles of a picture, without the thumbnail, in VLMEvalKit's wrapper.
        scorers: name in `scorers.SCORERS` by name of the rules: "vlmevalkit" (December 2024, text kept) and
            "internvl" (upstream's scripts); rules without an entry have no scorer.
        judge: name of the judge's prompt in `judge_prompts`, or None where the rules need no judge.
        rows: published number of rows, or None where it is not known.
        cards: column of the card's table by name of the card.
    """

    name: str
    question_type: str
    max_num: int
    scorers: Mapping[str, str]
    judge: str | None = None
    rows: int | None = None
    cards: Mapping[str, str] = field(default_factory=dict)


BENCHMARKS: dict[str, Benchmark] = {
    row.name: row
    for row in (
        Benchmark("MMStar", "MCQ", 6, {"vlmevalkit": "choice"}, judge="choice", rows=1500, cards={"mpo": "MMStar"}),
    )
}
