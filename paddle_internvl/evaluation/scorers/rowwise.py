"""Row-wise scorers: a verdict on each answer by its references, averaged over rows, splits and categories."""

import ast
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.scores import Scorer, Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

RowScore = Callable[[str, Sequence[str]], Verdict]  # answer, references


def rowwise(row_score: RowScore, *, lists: bool = True, headline: Literal["rows", "mean of splits"] = "rows") -> Scorer:
    """Scorer that gives each row the verdict of a function.

    Args:
        row_score: verdict on an answer that is not blank, by its references, of which there is at least one.
        lists: the text of a Python list is a list of references, as VLMEvalKit reads it.
        headline: mean over all rows, or mean of the means of the splits.
    """

    def score(items: Sequence[Item], answers: Mapping[Index, str], _judge: Judge | None = None) -> Scores:
        rows = {item.index: _verdict(item, answers.get(item.index), row_score, lists) for item in items}
        table = averages(items, rows)
        return Scores(table, headline_of(table, headline), rows)

    return score


def _verdict(item: Item, answer: str | None, row_score: RowScore, lists: bool) -> Verdict:
    texts = references(item.answer, lists)
    if answer is None or not texts:
        return Verdict(None)
    return row_score(answer, texts) if answer.strip() else Verdict(0.0)


def references(answer: str | None, lists: bool = True) -> list[str]:
    """Reference answers of a row: the entries of a Python or JSON list, or the one text; [] where none is published.

    Args:
        answer: `Item.answer`.
        lists: whether the text of a list is a list.
    """
    if answer is None:
        return []
    if lists and answer.lstrip().startswith("["):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a backslash in a text
                entries = ast.literal_eval(answer.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return [answer]
        return [str(entry) for entry in entries] if isinstance(entries, list) else [answer]
    return [answer]


def averages(items: Sequence[Item], rows: Mapping[Index, Verdict]) -> dict[tuple[str, str], float]:
    """Mean verdicts in per cent as VLMEvalKit's VQA tables have them: by split, or by category where no split is."""
    scored = with_verdict(items, rows)
    if not scored:
        return {}
    splits = list(dict.fromkeys(item.split for item, _ in scored))
    total = percent(verdict for _, verdict in scored)
    if splits != ["none"]:
        by_split = {(split, "Overall"): percent(v for item, v in scored if item.split == split) for split in splits}
        return {**by_split, ("Overall", "Overall"): total}
    categories = sorted({item.category for item, _ in scored} - {""})
    by_category = {("none", name): percent(v for item, v in scored if item.category == name) for name in categories}
    return {("none", "Overall"): total, **by_category}


def headline_of(table: Mapping[tuple[str, str], float], kind: str) -> float | None:
    """The figure of `averages` that cards print: the mean over rows or the mean of the splits; None for no rows."""
    if kind == "mean of splits" and ("Overall", "Overall") in table:
        splits = [value for (row, _), value in table.items() if row != "Overall"]
        return sum(splits) / len(splits)
    return next((value for (_, column), value in reversed(table.items()) if column == "Overall"), None)
