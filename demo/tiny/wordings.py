"""Wordings of the tiny model's questions and small talk in English and Chinese: the tables of `wordings.json`.

Names in braces are filled by `demo.tiny.questions`. `typed.json` holds more wordings of the questions, as people type
them, and `paraphrases.json` wordings that no training sees.
"""

from __future__ import annotations

import json
from pathlib import Path


def table(name: str) -> dict:
    """The content of a JSON file of this folder."""
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


_TABLES = table("wordings.json")
WORDINGS: dict[str, dict[str, list[str]]] = _TABLES["questions"]  # name of a wording -> language -> questions
TYPED: dict[str, dict[str, list[str]]] = table("typed.json")  # as `WORDINGS`
PICTURES: dict[str, dict[str, list[str]]] = _TABLES["pictures"]  # number of a picture -> language -> names
FRAMES: dict[str, list[str]] = _TABLES["frames"]  # language -> {q}: question, {l}: with a small first letter
SYNONYMS: dict[str, list[list[str]]] = _TABLES["synonyms"]  # language -> groups of words that stand for each other
TALK: dict[str, dict[str, dict]] = _TABLES["talk"]  # topic -> "said": language -> texts, "answer": language -> text
NO_PICTURE: dict[str, str] = _TABLES["no picture"]  # language -> answer to a question that needs a picture
UNKNOWN: dict[str, str] = _TABLES["unknown"]  # language -> answer to a question of `FOREIGN`
FOREIGN: dict[str, list[str]] = _TABLES["foreign"]  # language -> questions about things that the model was not taught
FILLERS: dict[str, dict[str, list[str]]] = _TABLES["fillers"]  # name in a foreign question -> language -> words
