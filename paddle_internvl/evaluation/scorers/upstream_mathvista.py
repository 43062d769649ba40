"""Scorer of MathVista by upstream's rules of its quick mode, which asks no judge.

Source: OpenGVLab/InternVL 2410d1d, internvl_chat/eval/mathvista/{extract_answer,calculate_score}.py.
"""

import ast
import math
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.anls import levenshtein
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

_FINAL_ANSWER = re.compile(r"(Final answer:|Answer:)\s*(.*)", re.IGNORECASE)
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_GROUPS = (
    "question_type", "answer_type", "language", "source", "category", "task", "context", "grade", "skills",
)  # fmt: skip


def score_internvl_mathvista(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MathVista by upstream's rules: a multiple-choice answer always counts as one of the choices.

    Args:
        items: questions with the columns `question_type`, `answer_type`, `choices` and `precision`.
        answers: of the model, by index.
        judge: is not asked: the quick mode has no judge.
    Returns:
        `accuracy` in per cent by row: "average" and every `<column>.<value>` of the data; the headline is that of
        "average".
    """
    rows = {}
    for item in items:
        rows[item.index] = Verdict(None)
        if item.index in answers and item.answer is not None:
            value = _value(item, _extracted(item, answers[item.index]))
            rows[item.index] = Verdict(float(value == item.answer), value)
    cells = defaultdict(list)
    for item, verdict in with_verdict(items, rows):
        cells["average"].append(verdict)
        for column, value in _groups(item):
            cells[f"{column}.{value}"].append(verdict)
    table = {(row, "accuracy"): percent(verdicts) for row, verdicts in cells.items()}
    return Scores(table, table.get(("average", "accuracy")), rows, ("upstream's quick mode: no judge",))


def _groups(item: Item) -> Iterator[tuple[str, str]]:
    """Groups of an item: (column, value) of its columns, which upstream's data hold in a dictionary `metadata`."""
    metadata = item.columns.get("metadata")
    columns = {**item.columns, **(ast.literal_eval(metadata) if metadata else {})}
    for column in _GROUPS:
        values = columns.get(column) or ""
        for value in filter(None, list_text(values) if isinstance(values, str) else values):
            yield column, value


def _extracted(item: Item, answer: str) -> str:
    """The answer itself where it is a choice or a number, else the line behind its first `Final answer:`."""
    if item.columns.get("question_type") == "multi_choice" and answer in list_text(item.columns.get("choices", "")):
        return answer
    read = {"integer": int, "float": float}.get(item.columns.get("answer_type"))
    if read is not None and (number := _read(read, answer)) is not None:
        return str(number)
    match = _FINAL_ANSWER.search(answer)
    return match.group(2).strip() if match else answer


def _value(item: Item, text: str) -> str | None:
    """Text of a choice, or of a number as the reference has it; None where the text is no number."""
    choices = list_text(item.columns.get("choices", ""))
    if item.columns.get("question_type") == "multi_choice":
        return _choice(text.strip(), choices)
    answer_type, precision = item.columns.get("answer_type"), item.columns.get("precision")
    if answer_type not in ("integer", "float"):
        return text
    number = _read(float, text)
    if number is None or not math.isfinite(number):
        return None
    if answer_type == "integer":
        return str(int(number))
    return str(round(number, int(float(precision)))) if precision else None


def _choice(text: str, choices: Sequence[str]) -> str:
    """The choice of a letter, `(B)` anywhere or `B` alone, else the choice nearest by edit distance."""
    letter = match.group(1).upper() if (match := _LETTER.search(text)) else text
    position = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if 0 <= position < len(choices):
        return choices[position]
    return min(choices or [text], key=lambda choice: levenshtein(choice, letter))


def _read(read: Callable[[str], float], text: str) -> float | None:
    """Number of a text, or None."""
    try:
        return read(text)
    except ValueError:
        return None
