"""Scorer of HallusionBench: accuracy of answers, of figures and of questions.

Source: VLMEvalKit 00e0cf87, dataset/utils/yorn.py, `Hallusion_rating`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.labels import label_verdicts
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

_PARTS = 6  # of an index: <name>_<category>_<subcategory>_<set>_<figure>_<question>
_FIGURE, _QUESTION = 4, 5


def score_hallusionbench(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of HallusionBench.

    Args:
        items: questions that have a picture; the index holds set, figure and question in its parts 3, 4 and 5.
        answers: of the model, by index.
        judge: reads answers that are neither yes nor no; None: these answers are wrong.
    Returns:
        aAcc, fAcc and qAcc in per cent by row ("Overall", every category and `l2-category`); the headline is the mean
        of the row "Overall". A figure or question of which a row is not answered is not counted.
    Raises:
        ValueError: an index has not the six parts.
    """
    for item in items:
        if len(str(item.index).split("_")) < _PARTS:
            raise ValueError(f"the index {item.index!r} has no set, figure and question: six parts joined by _")
    rows, notes = label_verdicts(items, answers, judge)
    groups = {"Overall": list(items)}
    for column in ("category", "l2-category"):
        for item in items:
            if name := item.columns.get(column, ""):
                groups.setdefault(name, []).append(item)
    table = {}
    for name, members in groups.items():
        if scored := with_verdict(members, rows):
            table[name, "aAcc"] = percent(verdict for _, verdict in scored)
            table[name, "fAcc"] = _all_right(members, rows, _FIGURE)
            table[name, "qAcc"] = _all_right(members, rows, _QUESTION)
    overall = [table[key] for key in table if key[0] == "Overall"]
    return Scores(table, sum(overall) / len(overall) if overall else None, rows, notes)


def _all_right(items: Sequence[Item], rows: Mapping[Index, Verdict], part: int) -> float:
    """Per cent of the figures (part 4) or questions (part 5) of which every row is right."""
    groups = defaultdict(list)
    for item in items:
        parts = str(item.index).split("_")
        groups[item.columns.get("l2-category"), parts[3], parts[part]].append(rows[item.index].verdict)
    return percent(float(all(verdicts)) for verdicts in groups.values() if None not in verdicts)
