"""Score tables: means of verdicts by split and group, as VLMEvalKit's `report_acc` prints them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.scorers.scores import Verdict

# VLMEvalKit's abbreviations of MMBench's abilities.
ABBREVIATIONS = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}


def percent(values: Iterable[float]) -> float:
    """Mean of values between 0 and 1, in per cent; 0 without a value."""
    values = list(values)
    return 100 * sum(values) / len(values) if values else 0.0


def with_verdict(items: Sequence[Item], rows: Mapping[Index, Verdict]) -> list[tuple[Item, float]]:
    """Items that have a verdict, each with its verdict."""
    return [(item, verdict) for item in items if (verdict := rows[item.index].verdict) is not None]


def split_table(items: Sequence[Item], rows: Mapping[Index, Verdict]) -> dict[tuple[str, str], float]:
    """Per cent right by (split, group): "Overall", every `l2-category` (MMBench's abbreviated) and every `category`."""
    table: dict[tuple[str, str], float] = {}
    scored = with_verdict(items, rows)
    for column in (None, "l2-category", "category"):
        cells = defaultdict(list)
        for item, verdict in scored:
            group = "Overall" if column is None else item.columns.get(column, "")
            if group:
                cells[item.split, ABBREVIATIONS.get(group, group)].append(verdict)
        table.update((key, percent(verdicts)) for key, verdicts in cells.items())
    return table


def overall(items: Sequence[Item], rows: Mapping[Index, Verdict]) -> float | None:
    """Per cent right of all items that have a verdict; None without such an item."""
    scored = with_verdict(items, rows)
    return percent(verdict for _, verdict in scored) if scored else None
