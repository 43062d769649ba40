"""Held-out questions of the tiny model: of every kind, in wordings that training never sees, and about foreign things.

In: a fixed seed, and `paraphrases.json`. Out: `Case`s. No model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from PIL import Image

from demo.tiny import questions, scenes
from demo.tiny.conversations import MAX_TILES
from demo.tiny.scenes import Scene
from demo.tiny.wordings import TALK, UNKNOWN, table

SEED = "held out"  # training draws from other seeds


@dataclass(frozen=True)
class Case:
    """A question about pictures.

    Attributes:
        kind: that it is reported as.
        scenes: of the pictures; cases about the same picture hold the same object.
        prefix: marks in front of the question.
        question: with its answer.
        max_num: most tiles of each picture.
    """

    kind: str
    scenes: tuple[Scene, ...]
    prefix: str
    question: questions.Question
    max_num: int = MAX_TILES

    @cached_property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The rendered scenes. Most cases that are drawn are of no use, and never rendered."""
        return tuple(map(scenes.render, self.scenes))


def cases(rng: random.Random) -> Iterator[Case]:
    """Cases without end, of every kind."""
    while True:
        for make in (scenes.objects_scene, scenes.text_scene):
            scene = make(rng)
            for question in questions.scene_questions(scene, rng, 4):
                yield Case(question.kind, (scene,), "<image>\n", question)
        scene = scenes.wide_scene(rng)
        for question in questions.scene_questions(scene, rng, 3):
            if question.kind == "reading":
                yield Case("small print, tiled", (scene,), "<image>\n", question)
                yield Case("small print, one tile", (scene,), "<image>\n", question, max_num=1)
        scene = scenes.labels_scene(rng)
        for question in questions.label_questions(scene, rng, 1):
            yield Case(question.kind, (scene,), "<image>\n", question)
        pair = [scenes.objects_scene(rng) for _ in range(2)]
        for question in questions.pair_questions(pair, rng, 2):
            yield Case(question.kind, tuple(pair), questions.PAIR_MARKS, question, max_num=1)
        frames, thing, motion = scenes.clip(rng, rng.choice((4, 6)))
        for question in questions.clip_questions(thing, motion, rng, 2):
            if question.kind == "motion":
                yield Case("motion", tuple(frames), questions.frame_marks(len(frames)), question, max_num=1)
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
    tables = table("paraphrases.json")
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
    for index, text in enumerate(table("paraphrases.json")["foreign"]):
        drawn = (scenes.objects_scene(rng),) if index % 2 else ()
        marks = "<image>\n" if drawn else ""
        kept.append(Case("foreign", drawn, marks, _question("foreign", text, UNKNOWN)))
    return kept


def _question(kind: str, text: str, answers: Mapping[str, str]) -> questions.Question:
    """A question whose answer is one for each language."""
    language = questions.language_of(text)
    return questions.Question(kind, text, answers[language], language)
