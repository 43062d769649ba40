"""Scorers of multiple-choice questions by upstream's rules: SEED-Bench and ScienceQA.

Source: OpenGVLab/InternVL 2410d1d, internvl_chat/eval/{seed,scienceqa}.
"""

import string
from collections.abc import Callable, Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import overall, split_table


def score_internvl_seed(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of SEED-Bench: the first character of an answer is its letter.

    Args:
        items: questions about pictures; `answer` is a letter.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    """
    return _score(items, answers, lambda answer, _: answer[:1])


def score_internvl_scienceqa(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of ScienceQA: letters of `upstream_letter`.

    Args:
        items: questions; `answer` is a letter, or the position of the right option from 0.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    """
    return _score(items, answers, lambda answer, item: parenthesised(upstream_letter(answer, item.options)))


def upstream_letter(answer: str, options: Mapping[str, str]) -> str:
    """Upstream's post-processing of a multiple-choice answer.

    Args:
        answer: of the model.
        options: text of every option, by letter.
    Returns:
        The first character where it is a letter of the options, else the letter of the first option whose text the
        answer contains, else the answer without blanks around.
    """
    text = answer.strip()
    if len(text) <= 1:
        return text
    if text[0] in options:
        return text[0]
    return next((letter for letter, option in options.items() if option in text), text)


def parenthesised(text: str) -> str:
    """The letter of `X.` and `(X)` at the start of a text, else the text."""
    if text[1:2] == ".":
        return text[0]
    return text[1] if text[:1] == "(" and text[2:3] == ")" else text


def _score(items: Sequence[Item], answers: Mapping[Index, str], letter_of: Callable[[str, Item], str]) -> Scores:
    """Scores of answers whose letter equals the reference."""
    rows = {}
    for item in items:
        if item.index not in answers or item.answer is None:
            rows[item.index] = Verdict(None)
            continue
        letter = letter_of(answers[item.index], item)
        reference = string.ascii_uppercase[int(item.answer)] if item.answer.isdecimal() else item.answer
        rows[item.index] = Verdict(float(letter == reference), letter if letter in item.options else None)
    return Scores(split_table(items, rows), overall(items, rows), rows)
