"""Scorer of Video-MME: the first capital letter from A to D, by duration and group.

Source: VLMEvalKit 00e0cf87, dataset/utils/videomme.py.
"""

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.letters import infer_letter
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

# Removed before the search, in this order; two entries are pairs that the original joins by a missing comma.
_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)
_GROUPS = ("domain", "sub_category", "task_type")


def score_video_mme(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of Video-MME.

    Args:
        items: questions with the columns `duration`, `domain`, `sub_category` and `task_type`; `answer` is a letter.
        answers: of the model, by index.
        judge: is not asked: VLMEvalKit's question to it lacks the options, so that no reply can be right.
    Returns:
        Per cent right by row, a duration or "overall", and by column: `overall` and `<group>.<name>`. The headline is
        `overall` of the row "overall".
    """
    rows = {item.index: _verdict(item, answers.get(item.index)) for item in items}
    cells = defaultdict(list)
    for item, verdict in with_verdict(items, rows):
        columns = ["overall", *(f"{group}.{name}" for group in _GROUPS if (name := item.columns.get(group)))]
        for row in filter(None, (item.columns.get("duration"), "overall")):
            for column in columns:
                cells[row, column].append(verdict)
    table = {key: percent(verdicts) for key, verdicts in cells.items()}
    return Scores(table, table.get(("overall", "overall")), rows)


def _verdict(item: Item, answer: str | None) -> Verdict:
    """Verdict on an answer; without a verdict where the answer or the reference is missing."""
    if answer is None or item.answer is None:
        return Verdict(None)
    letter = _first_letter(answer) or infer_letter(answer, _options(item.question))
    return Verdict(float(letter == item.answer), letter)


def _first_letter(answer: str) -> str | None:
    """The first of A, B, C and D in an answer without its stock prefixes."""
    text = answer.strip()
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    match = re.search("[ABCD]", text)
    return match[0] if match else None


def _options(question: str) -> dict[str, str]:
    """Options in the lines of a question after its first."""
    options = {}
    for letter, line in zip(string.ascii_uppercase, question.split("\n")[1:]):
        _, mark, text = line.partition(f"{letter}.")
        if mark:
            options[letter] = text.strip(". \n")
    return options
