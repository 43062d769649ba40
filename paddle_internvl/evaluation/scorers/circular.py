"""Scorer of circular questions (MMBench, CCBench): a question is right where every rotation of its options is.

Source: VLMEvalKit 00e0cf87, dataset/utils/multiple_choice.py, `mcq_circular_eval`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.letters import letters
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import overall, split_table

PASS = 1_000_000  # pass k of a question has the index of the question + k * PASS


def score_circular(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of questions that are asked once per rotation of their options.

    Args:
        items: passes; the index of pass k is that of the question + k * 1,000,000.
        answers: of the model, by index.
        judge: reads answers that name no single option, of the questions that are not wrong without them; None: these
            answers are wrong.
    Returns:
        Per cent of questions right, by split, ability and category. The base index has the verdict of its question,
        further passes have none. A question without the answer to a pass has none either.
    Raises:
        ValueError: an index is not an integer.
    """
    groups = defaultdict(list)
    for item in items:
        if not isinstance(item.index, int):
            raise ValueError(f"circular questions need integer indices, not {item.index!r}")
        groups[item.index % PASS].append(item)
    found, _ = letters(items, answers, None)
    undecided = [
        item
        for passes in groups.values()
        if _complete(passes, found) and all(found[item.index] in (None, item.answer) for item in passes)
        for item in passes
        if found[item.index] is None
    ]
    replies, notes = letters(undecided, answers, judge)
    found.update(replies)

    rows = {item.index: Verdict(None, found.get(item.index)) for item in items}
    for base, passes in groups.items():
        if base in rows and _complete(passes, found):
            right = all(found[item.index] == item.answer for item in passes)
            rows[base] = Verdict(float(right), found[base])
    return Scores(split_table(items, rows), overall(items, rows), rows, notes)


def _complete(passes: Sequence[Item], found: Mapping[Index, str | None]) -> bool:
    """Whether every pass of a question has an answer and a reference."""
    return all(item.index in found and item.answer is not None for item in passes)
