"""Examples of the page: a question with its pictures or clip, one click each.

In: a folder with `examples.json` and its files. Out: `Example`s, and the form in which Gradio's chat shows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.webdemo.texts import LANGUAGES

FILE = "examples.json"


@dataclass(frozen=True)
class Example:
    """A question to click on.

    Attributes:
        pictures: paths.
        clip: path, or None.
        texts: language -> {'label': shown on the page, 'question': sent to the model}.
    """

    pictures: tuple[str, ...]
    clip: str | None
    texts: Mapping[str, Mapping[str, str]]

    def question(self, language: str) -> str:
        """The question in a language of the page."""
        return self.texts[language]["question"]


def load(folder: Path | None) -> list[Example]:
    """The examples of a folder; none without `examples.json`. Examples whose files are missing are left out."""
    if folder is None or not (folder / FILE).is_file():
        return []
    examples = []
    for row in json.loads((folder / FILE).read_text(encoding="utf-8")):
        pictures = tuple(str(folder / name) for name in row["pictures"])
        clip = row["clip"] and str(folder / row["clip"])
        if all(Path(file).is_file() for file in (*pictures, clip) if file):
            examples.append(Example(pictures, clip, {language: row[language] for language in LANGUAGES}))
    return examples


def chat_examples(examples: Sequence[Example], language: str) -> list[dict]:
    """The examples as `gr.Chatbot` takes them."""
    return [
        {
            "display_text": example.texts[language]["label"],
            "text": example.question(language),
            "icon": (*example.pictures, example.clip)[0],
        }
        for example in examples
    ]
