"""Scorer of MMBench-Video: a judge's rating from 0 to 3, by dimension.

Source: VLMEvalKit 00e0cf87, dataset/utils/mmbench_video.py.
"""

import re
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.judge_prompts import conversation
from paddle_internvl.evaluation.judging import judge_all
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import with_verdict

# Fine dimensions by coarse dimension.
PERCEPTION = {
    "CP": ("Video Topic", "Video Emotion", "Video Scene", "Video Style"),
    "FP-S": (
        "OCR", "Object Recognition", "Attribute Recognition", "Event Recognition", "Human Motion", "Counting",
    ),
    "FP-C": ("Spatial Relationship", "Human-object Interaction", "Human Interaction"),
    "HL": ("Hallucination",),
}  # fmt: skip
REASONING = {
    "LR": ("Structuralized Image-Text Understanding", "Mathematical Calculation"),
    "AR": ("Physical Property", "Function Reasoning", "Identity Reasoning"),
    "RR": ("Natural Relation", "Physical Relation", "Social Relation"),
    "CSR": ("Common Sense Reasoning",),
    "TR": ("Counterfactual Reasoning", "Causal Reasoning", "Future Prediction"),
}
_ALL_PERCEPTION, _ALL_REASONING = sum(PERCEPTION.values(), ()), sum(REASONING.values(), ())
COARSE = {
    **PERCEPTION, **REASONING, "Perception": _ALL_PERCEPTION, "Reasoning": _ALL_REASONING,
    "Overall": _ALL_PERCEPTION + _ALL_REASONING,
}  # fmt: skip
FINE = {name: (name,) for name in COARSE["Overall"]}


def score_mmbench_video(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MMBench-Video.

    Args:
        items: questions; the column `dimensions` is a list of fine dimensions.
        answers: of the model, by index.
        judge: gives the rating; None: no verdict and no figure.
    Returns:
        Mean rating, 0 to 3, by dimension in four rows: `coarse_all` and `fine_all` count a failure of the judge as 0,
        `coarse_valid` and `fine_valid` leave it out. The headline is `coarse_all` of `Overall`. The verdict on a row
        is its rating.
    """
    rows = {item.index: Verdict(None) for item in items}
    if judge is None:
        return Scores({}, None, rows, ("no figure: MMBench-Video is scored by a judge",))
    answered = [item for item in items if item.index in answers and item.answer is not None]
    questions = [
        conversation("mmbench_video", question=item.question, answer=item.answer, prediction=answers[item.index])
        for item in answered
    ]
    replies = judge_all(judge, questions, [_parse] * len(answered))
    for item, rating in zip(answered, replies, strict=True):
        rows[item.index] = Verdict(0.0) if rating is None else Verdict(float(rating), str(rating))

    scored = with_verdict(items, rows)
    valid = [(item, rating) for item, rating in scored if rows[item.index].extracted is not None]
    table = {}
    for grain, dimensions in (("coarse", COARSE), ("fine", FINE)):
        for name, ratings in (("all", scored), ("valid", valid)):
            table.update({(f"{grain}_{name}", key): mean for key, mean in _means(ratings, dimensions).items()})
    failures = replies.count(None)
    notes = (f"the judge failed on {failures} answers, which count as 0",) if failures else ()
    return Scores(table, table.get(("coarse_all", "Overall")), rows, notes)


def _means(ratings: Sequence[tuple[Item, float]], dimensions: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Mean rating of the rows that have one of the fine dimensions, by name."""
    means = {}
    for name, fine in dimensions.items():
        members = [
            rating
            for item, rating in ratings
            if not set(fine).isdisjoint(list_text(item.columns.get("dimensions", "")))
        ]
        if members:
            means[name] = sum(members) / len(members)
    return means


def _parse(reply: str) -> int | None:
    """Rating of a reply; None asks again."""
    return int(reply) if re.fullmatch(r"\s*[0-3]\s*", reply) else None
