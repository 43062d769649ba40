"""Items of the goldens under tests/goldens/evaluation: rows of a benchmark, without pictures, as JSON objects."""

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_internvl.evaluation.item import Index, Item

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation"


def golden(benchmark: str) -> dict:
    """Content of a benchmark's scores.json."""
    return json.loads((GOLDENS / benchmark / "scores.json").read_text(encoding="utf-8"))


def read_items(rows: Sequence[Mapping[str, str]]) -> list[Item]:
    """Items of rows as VLMEvalKit's TSV files have them: only an empty cell is missing."""
    numbers = all(row["index"].isdecimal() for row in rows)
    return [
        Item(
            index=int(row["index"]) if numbers else row["index"],
            question=row["question"],
            answer=row.get("answer") or None,
            options={letter: row[letter] for letter in string.ascii_uppercase if row.get(letter)},
            category=row.get("category", ""),
            split=row.get("split") or "none",
            columns=row,
        )
        for row in rows
    ]


def read_answers(items: Sequence[Item], answers: Mapping[str, str]) -> dict[Index, str]:
    """Answers by the items' own indices; answers to other rows stay, as in a prediction file."""
    indices = {str(item.index): item.index for item in items}
    return {indices.get(index, index): answer for index, answer in answers.items()}
