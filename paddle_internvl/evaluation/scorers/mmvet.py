"""Scorer of MM-Vet: a judge's correctness between 0 and 1, by capability.

Source: VLMEvalKit 00e0cf87, dataset/utils/mmvet.py.
"""

from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.judge_prompts import conversation
from paddle_internvl.evaluation.judging import judge_all
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def score_mmvet(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MM-Vet.

    Args:
        items: questions; `answer` joins its parts by <AND> and <OR>, `category` is a comma list of capabilities.
        answers: of the model, by index.
        judge: gives the correctness; None: no verdict and no figure.
    Returns:
        `acc` in per cent and `tot`, the number of rows, by row: "Overall" and every capability. A failure of the judge
        counts as 0.
    """
    if judge is None:
        rows = {item.index: Verdict(None) for item in items}
        return Scores({}, None, rows, ("no figure: MM-Vet is scored by a judge",))
    answered = [item for item in items if item.index in answers and item.answer is not None]
    replies = judge_all(judge, [_question(item, answers[item.index]) for item in answered], [_parse] * len(answered))
    rows = {item.index: Verdict(None) for item in items}
    for item, correctness in zip(answered, replies, strict=True):
        rows[item.index] = Verdict(0.0) if correctness is None else Verdict(correctness, str(correctness))
    table = {}
    scored = with_verdict(items, rows)
    for name in ("Overall", *CAPABILITIES):
        verdicts = [verdict for item, verdict in scored for _ in range(_times(name, item.category))]
        if verdicts:
            table.update({(name, "tot"): len(verdicts), (name, "acc"): percent(verdicts)})
    failures = replies.count(None)
    notes = (f"the judge failed on {failures} answers, which count as 0",) if failures else ()
    return Scores(table, table.get(("Overall", "acc")), rows, notes)


def _times(name: str, category: str) -> int:
    """How often a row counts in a table row: twice where its category is this one capability, as in VLMEvalKit."""
    return 1 if name == "Overall" else (name in category) + (name == category)


def _question(item: Item, answer: str) -> list[dict]:
    """Messages that ask for the correctness of an answer."""
    reference = item.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return conversation("mmvet", question=item.question, answer=reference, prediction=answer)


def _parse(reply: str) -> float | None:
    """Correctness of a reply; None asks again."""
    try:
        correctness = float(reply)
    except ValueError:
        return None
    return correctness if 0 <= correctness <= 1 else None
