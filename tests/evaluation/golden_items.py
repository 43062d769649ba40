"""Goldens under tests/goldens/evaluation as items and answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.readers.tsv import item_of_row

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation"


def golden(benchmark: str) -> dict:
    """Content of a benchmark's scores.json."""
    return json.loads((GOLDENS / benchmark / "scores.json").read_text(encoding="utf-8"))


def read_items(rows: Sequence[Mapping[str, str]]) -> list[Item]:
    """Items of the rows of a TSV file."""
    numbers = all(row["index"].isdecimal() for row in rows)
    return [item_of_row(row, int(row["index"]) if numbers else row["index"]) for row in rows]


def read_answers(items: Sequence[Item], answers: Mapping[str, str]) -> dict[Index, str]:
    """Answers by the items' own indices; answers to other rows stay, as in a prediction file."""
    indices = {str(item.index): item.index for item in items}
    return {indices.get(index, index): answer for index, answer in answers.items()}
