"""Scorers of POPE: accuracy, precision, recall and F1 of "yes", by VLMEvalKit's and by upstream's rules.

Sources: VLMEvalKit 00e0cf87, dataset/utils/yorn.py, `POPE_rating`; OpenGVLab/InternVL 2410d1d,
internvl_chat/eval/pope/eval_pope.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.labels import label_verdicts
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

_NEGATIONS = {"No", "not", "no"}


def score_pope(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of POPE by VLMEvalKit's rules: a row counts once in each category of its comma list.

    Args:
        items: questions; `answer` is "Yes" or "No".
        answers: of the model, by index.
        judge: reads answers that are neither yes nor no; None: these answers are wrong, and no "yes".
    Returns:
        `Overall` (F1), `acc`, `precision` and `recall` in per cent by row: "Overall" and every category; the headline
        is the F1 of the row "Overall".
    """
    rows, notes = label_verdicts(items, answers, judge)
    table = {}
    for name, members in _by_category(items, rows).items():
        table.update(_measures(name, members, rows))
    return Scores(table, table.get(("Overall", "Overall")), rows, notes)


def score_internvl_pope(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of POPE by upstream's rules: every answer without a negation in its first sentence is "yes".

    Args:
        items: questions; `answer` is "Yes" or "No" in any case.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    Returns:
        As `score_pope`, but the F1 of the row "Overall" is the mean of the categories' F1.
    """
    rows = {}
    for item in items:
        label = upstream_label(answers[item.index]) if item.index in answers else None
        rows[item.index] = Verdict.of_equality(label, item.answer and item.answer.capitalize())
    table = {}
    for name, members in _by_category(items, rows).items():
        table.update(_measures(name, members, rows))
    by_category = [value for (name, column), value in table.items() if column == "Overall" and name != "Overall"]
    if by_category:
        table["Overall", "Overall"] = sum(by_category) / len(by_category)
    return Scores(table, table.get(("Overall", "Overall")), rows)


def upstream_label(answer: str) -> str:
    """Upstream's label: "No" where the text before the first dot, without commas, has a negation as a word."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "Yes" if _NEGATIONS.isdisjoint(words) else "No"


def _by_category(items: Sequence[Item], rows: Mapping[Index, Verdict]) -> dict[str, list[Item]]:
    """Items with a verdict of the row "Overall" (once per category) and of each category."""
    groups = defaultdict(list)
    for item, _ in with_verdict(items, rows):
        for category in item.category.split(","):
            groups["Overall"].append(item)
            if category:
                groups[category].append(item)
    return groups


def _measures(name: str, items: Sequence[Item], rows: Mapping[Index, Verdict]) -> dict[tuple[str, str], float]:
    """Table cells of a row; an answer without a label is no "yes"."""
    pairs = [(item.answer.lower() == "yes", rows[item.index].extracted == "Yes") for item in items]
    hits = sum(reference and label for reference, label in pairs)
    labelled = sum(label for _, label in pairs)
    positive = sum(reference for reference, _ in pairs)
    precision = hits / labelled if labelled else 0.0
    recall = hits / positive if positive else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {
        (name, "Overall"): 100 * f1,
        (name, "acc"): percent(rows[item.index].verdict for item in items),
        (name, "precision"): 100 * precision,
        (name, "recall"): 100 * recall,
    }
