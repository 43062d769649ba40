"""Held-out questions of the tiny model: of every kind, in wordings that training never sees, and about foreign things.

In: a fixed seed, and `paraphrases.json`. Out: `Case`s. No model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from demo.tiny import questions, scenes
from demo.tiny.conversations import MAX_TILES
from demo.tiny.wordings import TALK, UNKNOWN

SEED = "held out"  # training draws from other seeds


@dataclass(frozen=True)
class Case:
    """A question about pictures, under the kind it is reported as. `max_num` limits each picture's tiles."""

    kind: str
    pictures: tuple[Image.Image, ...]
    prefix: str
    question: questions.Question
    max_num: int = MAX_TILES


def cases(rng: random.Random) -> Iterator[Case]:
    """Cases without end, of every kind."""
    while True:
        for make in (scenes.objects_scene, scenes.text_scene):
            scene = make(rng)
            picture = scenes.render(scene)
            for question in questions.scene_questions(scene, rng, 4):
                yield Case(question.kind, (picture,), "<image>\n", question)
        scene = scenes.wide_scene(rng)
        picture = scenes.render(scene)
        for question in questions.scene_questions(scene, rng, 3):
            if question.kind == "reading":
                yield Case("small print, tiled", (picture,), "<image>\n", question)
                yield Case("small print, one tile", (picture,), "<image>\n", question, max_num=1)
        pair = [scenes.objects_scene(rng) for _ in range(2)]
        pictures = tuple(scenes.render(scene) for scene in pair)
        for question in questions.pair_questions(pair, rng, 2):
            yield Case(question.kind, pictures, questions.PAIR_MARKS, question, max_num=1)
        frames, thing, motion = scenes.clip(rng, rng.choice((4, 6)))
        pictures = tuple(scenes.render(scene) for scene in frames)
        for question in questions.clip_questions(thing, motion, rng, 2):
            if question.kind == "motion":
                yield Case("motion", pictures, questions.frame_marks(len(frames)), question, max_num=1)
        for question in questions.talk_questions(rng, 1):
            yield Case("talk", (), "", question)


def collect(per_kind: int) -> list[Case]:
    """`per_kind` cases of every kind (which may repeat, small talk does)."""
    kept: dict[str, list[Case]] = {}
    wanted = len(questions.KINDS) + 2  # small print stands beside the kinds, twice
    for case in cases(random.Random(SEED)):
        group = kept.setdefault(case.kind, [])
        if len(group) < per_kind:
            group.append(case)
        if len(kept) == wanted and all(len(group) == per_kind for group in kept.values()):
            return [case for group in kept.values() for case in group]


def paraphrases() -> list[Case]:
    """A case for each wording of `paraphrases.json`, under the kind 'new wordings'."""
    tables = _paraphrases()
    wanted = [(row, language, text) for row in tables if row not in ("talk", "foreign")
              for language, texts in tables[row].items() for text in texts]  # fmt: skip
    kept = [
        Case("new wordings", (), "", _question("talk", text, TALK[topic]["answer"]))
        for topic, texts in tables["talk"].items()
        for text in texts
    ]
    source = cases(random.Random(f"{SEED}, new wordings"))
    for row, language, text in wanted:
        case = next(c for c in source if (c.question.wording, c.question.language) == (row, language))
        asked = replace(case.question, text=text.format(**case.question.names))
        kept.append(replace(case, kind="new wordings", question=asked))
    return kept


def foreign() -> list[Case]:
    """Cases about things that the model was not taught, every second one beside a picture; a refusal is right."""
    rng, kept = random.Random(f"{SEED}, foreign"), []
    for index, text in enumerate(_paraphrases()["foreign"]):
        pictures = (scenes.render(scenes.objects_scene(rng)),) if index % 2 else ()
        marks = "<image>\n" if pictures else ""
        kept.append(Case("foreign", pictures, marks, _question("foreign", text, UNKNOWN)))
    return kept


def _paraphrases() -> dict:
    return json.loads(Path(__file__).with_name("paraphrases.json").read_text(encoding="utf-8"))


def _question(kind: str, text: str, answers: Mapping[str, str]) -> questions.Question:
    """A question whose answer is one for each language."""
    language = questions.language_of(text)
    return questions.Question(kind, text, answers[language], language)
