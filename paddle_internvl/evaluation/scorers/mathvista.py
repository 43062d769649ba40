"""Scorer of MathVista: letters and numbers that an answer is, else what a judge extracts from it.

Source: VLMEvalKit 00e0cf87, dataset/utils/mathvista.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.judge_prompts import conversation
from paddle_internvl.evaluation.judging import judge_all
from paddle_internvl.evaluation.scorers.letters import FAILURE, infer_letter, options_of_list
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict


def score_mathvista(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MathVista by VLMEvalKit's rules.

    A letter of a multiple-choice answer is final; a number is where it is right. Each other answer goes to the judge.

    Args:
        items: questions with the columns `question_type`, `answer_type`, `choices`, `answer_option`, `task` and
            `skills`.
        answers: of the model, by index.
        judge: extracts the value of an answer; None: these answers are wrong.
    Returns:
        `tot`, `prefetch`, `hit` (rows), `prefetch_rate` and `acc` (per cent) by row: "Overall", every skill and task.
        The headline is `acc` of the row "Overall".
    """
    rows = {item.index: Verdict(None) for item in items}
    unread = []
    for item in items:
        if item.index in answers and item.answer is not None:
            value = _value(item, answers[item.index])
            if value is not None and (_is_choice(item) or value == _reference(item)):
                rows[item.index] = _verdict(item, value)
            else:
                unread.append(item)
    prefetched = {index for index, row in rows.items() if row.verdict is not None}

    notes = ()
    if unread and judge is None:
        rows.update((item.index, Verdict(0.0)) for item in unread)
        notes = (f"rule-based: no judge; {len(unread)} answers are no letter or number and count as wrong",)
    elif unread:
        questions = [
            conversation("mathvista", question=item.question, prediction=answers[item.index]) for item in unread
        ]
        replies = judge_all(judge, questions, [_parse] * len(unread))
        for item, reply in zip(unread, replies, strict=True):
            rows[item.index] = _verdict(item, None if reply is None else _value(item, reply))
        if failures := replies.count(None):
            notes = (f"the judge failed on {failures} answers, which count as wrong",)
    table = _table(items, rows, prefetched)
    return Scores(table, table.get(("Overall", "acc")), rows, notes)


def _is_choice(item: Item) -> bool:
    return item.columns.get("question_type") == "multi_choice"


def _reference(item: Item) -> str | int | float | list[str] | None:
    """Right value of an item."""
    return item.columns.get("answer_option") if _is_choice(item) else _value(item, item.answer)


def _value(item: Item, text: str) -> str | int | float | list[str] | None:
    """Letter, number or list that a text is; None where it is none. VLMEvalKit never takes a list for right."""
    if _is_choice(item):
        return infer_letter(text, options_of_list(item.columns.get("choices", "")))
    read = {"integer": int, "float": float}.get(item.columns.get("answer_type"), list_text)
    try:
        return read(text)
    except ValueError:
        return None


def _verdict(item: Item, value: str | int | float | list[str] | None) -> Verdict:
    return Verdict(float(value is not None and value == _reference(item)), None if value is None else str(value))


def _parse(reply: str) -> str | None:
    """Reply of the judge; None, which asks again, for the text of a failed request."""
    return None if FAILURE in reply else reply


def _table(
    items: Sequence[Item], rows: Mapping[Index, Verdict], prefetched: set[Index]
) -> dict[tuple[str, str], float]:
    """Cells by (task or skill, column)."""
    groups = defaultdict(list)
    for item, verdict in with_verdict(items, rows):
        names = ["Overall", *list_text(item.columns.get("skills", "")), item.columns.get("task", "")]
        for name in filter(None, names):
            groups[name].append((verdict, float(item.index in prefetched)))
    table = {}
    for name, values in groups.items():
        hits, fetched = zip(*values, strict=True)
        table.update(
            {
                (name, "tot"): len(values),
                (name, "prefetch"): sum(fetched),
                (name, "hit"): sum(hits),
                (name, "prefetch_rate"): percent(fetched),
                (name, "acc"): percent(hits),
            }
        )
    return table
