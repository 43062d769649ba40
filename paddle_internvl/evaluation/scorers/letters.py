"""Letters of multiple-choice answers: VLMEvalKit's `can_infer`, and the judge where no letter can be inferred.

In: items with options and their answers. Out: a letter per item; "Z" is an answer that refuses, None an answer that
names no single option. Source: VLMEvalKit 00e0cf87, utils/matching_util.py and dataset/utils/multiple_choice.py.
"""

import re
import string
from collections.abc import Mapping, Sequence
from functools import partial

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.judge_prompts import conversation
from paddle_internvl.evaluation.judging import judge_all

FAILURE = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_CHINESE = re.compile("[\u4e00-\u9fff]")


def infer_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Letter of an answer: the one option that stands in it as a word, else the one whose text the answer contains.

    Args:
        answer: of the model, or reply of a judge.
        options: text of every option, by letter.
    Returns:
        A letter of the options; "Z" for a refusal; None where no option or several options are named.
    """
    if FAILURE in answer:
        return None
    if any(refusal in answer for refusal in REFUSALS):
        return "Z"
    words = set(answer.translate(_MARKS).split())
    named = [letter for letter in options if letter in words]
    if len(named) == 1:
        return named[0]
    if not named and "Z" in words:
        return "Z"
    lowered = answer.lower()
    contained = [letter for letter, text in options.items() if text.lower() in lowered]
    return contained[0] if len(contained) == 1 else None


def options_of_list(cell: str) -> dict[str, str]:
    """Options by letter of a cell that holds a list of their texts."""
    return {letter: text for letter, text in zip(string.ascii_uppercase, list_text(cell)) if text}


def letters(
    items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None
) -> tuple[dict[Index, str | None], tuple[str, ...]]:
    """Letters of answers, and notes on the answers that have none.

    Args:
        items: questions with options.
        answers: by index; items without an answer are left out.
        judge: reads the answers that name no single option; None: these answers have no letter.
    Returns:
        Letter by index, and notes.
    """
    answered = [item for item in items if item.index in answers]
    found = {item.index: infer_letter(answers[item.index], item.options) for item in answered}
    unread = [item for item in answered if found[item.index] is None]
    if not unread:
        return found, ()
    if judge is None:
        return found, (f"rule-based: no judge; {len(unread)} answers name no single option and count as wrong",)
    replies = judge_all(
        judge,
        [_question(item, answers[item.index]) for item in unread],
        [partial(infer_letter, options=item.options) for item in unread],
    )
    found.update((item.index, letter) for item, letter in zip(unread, replies, strict=True))
    failures = replies.count(None)
    return found, (f"the judge failed on {failures} answers, which count as wrong",) if failures else ()


def _question(item: Item, answer: str) -> list[dict]:
    """Messages that ask a judge which option an answer means."""
    lines = "".join(f"{letter}. {text}\n" for letter, text in item.options.items())
    return conversation(
        "choice_chinese" if _CHINESE.search(item.question) else "choice",
        question=item.question,
        options=f"There are several options: \n{lines}",
        prediction=answer,
    )
