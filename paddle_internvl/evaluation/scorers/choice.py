"""Scorers of multiple-choice questions that are asked once: MMStar, AI2D, SEED-Bench, RealWorldQA, ScienceQA, MMMU.

Source: VLMEvalKit 00e0cf87, dataset/utils/multiple_choice.py, `mcq_vanilla_eval` and `report_acc`.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.letters import letters
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import overall, split_table

_HEADLINE_SPLIT = "validation"  # the split of MMMU_DEV_VAL that cards print


def score_choice(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of questions with one correct letter.

    Args:
        items: questions with their options; `answer` is the correct letter.
        answers: of the model, by index.
        judge: reads answers that name no single option; None: these answers are wrong.
    Returns:
        Per cent right by split and category; the headline is that of all rows.
    """
    found, notes = letters(items, answers, judge)
    rows = {item.index: choice_verdict(item, found) for item in items}
    return Scores(split_table(items, rows), overall(items, rows), rows, notes)


def choice_verdict(item: Item, found: Mapping[Index, str | None]) -> Verdict:
    """Verdict on a letter; without a verdict where the answer or the reference is missing."""
    letter = found.get(item.index)
    if item.index not in found or item.answer is None:
        return Verdict(None, letter)
    return Verdict(float(letter == item.answer), letter)


def score_mmmu(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MMMU, whose open questions VLMEvalKit turns into questions of two options.

    An item without option A gets the reference as option A and `Other Answers` as option B. A reference that is no
    single capital letter counts as A.

    Args:
        items: questions; `answer` is a letter or the free reference.
        answers: of the model, by index.
        judge: reads answers that name no single option; None: these answers are wrong.
    Returns:
        As `score_choice`; the headline is that of the split `validation` where the file has it.
    """
    scores = score_choice([_closed(item) for item in items], answers, judge)
    headline = scores.table.get((_HEADLINE_SPLIT, "Overall"), scores.headline)
    return replace(scores, headline=headline)


def _closed(item: Item) -> Item:
    """Item of MMMU with options, and with a letter as its reference."""
    if item.answer is None:
        return item
    open_options = {} if "A" in item.options else {"A": item.answer, "B": "Other Answers"}
    letter = item.answer if item.answer in set(string.ascii_uppercase) else "A"
    return replace(item, options={**item.options, **open_options}, answer=letter)
