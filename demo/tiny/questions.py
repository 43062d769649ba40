"""Questions about scenes and their one right answer each, in English and Chinese.

In: a `Scene` and a random generator. Out: `Question`s of a kind, worded as in `wordings`. Knows no pixels, no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from demo.tiny.scenes import COLORS, MOTIONS, POSITIONS, SHAPES, Scene, Thing, objects_scene
from demo.tiny.wordings import FILLERS, FOREIGN, FRAMES, NO_PICTURE, PICTURES, SYNONYMS, TALK, TYPED, UNKNOWN, WORDINGS

KINDS = (
    "colour", "shape", "count", "position", "reading", "yes/no", "description", "box", "two pictures", "motion", "talk",
)  # fmt: skip
CHINESE = {
    **dict(zip(COLORS, ("红色", "绿色", "蓝色", "黄色", "橙色", "紫色", "粉色", "黑色"))),
    **dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "菱形", "十字形"))),
    **dict(zip(POSITIONS, ("左上", "上方", "右上", "左边", "中间", "右边", "左下", "下方", "右下"))),
}
CHINESE_MOTIONS = dict(zip(MOTIONS, ("向左", "向右", "向上", "向下")))
PAIR_MARKS = "Image-1: <image>\nImage-2: <image>\n"  # in front of a first question about two pictures
_MARKS = "?.!？。！"  # that end a question
_HALF_WIDTH = str.maketrans("，。？！：", ",.?!:")
_SYNONYMS = {word: group for groups in SYNONYMS.values() for group in groups for word in group}
_SYNONYM = re.compile(  # not inside of another word or a name in braces
    "(?<![a-zA-Z{])(" + "|".join(sorted(_SYNONYMS, key=len, reverse=True)) + ")(?![a-zA-Z}-])"
)


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        kind: one of `KINDS`.
        text: the question.
        answer: its one right answer.
        language: 'en' or 'zh'.
        wording: the row of `WORDINGS`, "" where there is none.
        names: what fills the braces of the wording.
    """

    kind: str
    text: str
    answer: str
    language: str = "en"
    wording: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


class Asker:
    """Writes questions in one language, drawn at random for each conversation.

    Attributes:
        rng: of the wordings.
        language: 'en' or 'zh'.
    """

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.language = "zh" if rng.random() < 0.4 else "en"

    def ask(self, kind: str, wording: str, answer: str, **names) -> Question:
        """A question of a row of `WORDINGS` or `TYPED`, its names and answer in the conversation's language."""
        names = {key: self.word(value) for key, value in names.items()}
        if "shape" in names:
            names["shapes"] = _plural(names["shape"])
        table = TYPED if self.rng.random() < 0.6 else WORDINGS
        text = self.rng.choice(table[wording][self.language])
        if self.rng.random() < 1 / 3:
            text = self.rng.choice(rewordings(text))
        return Question(kind, self.vary(text.format(**names)), answer, self.language, wording, names)

    def vary(self, text: str) -> str:
        """A question as people type it: framed, in small letters, with half-width marks, without the last, or as is."""
        rng = self.rng
        if rng.random() >= 0.5:
            return text
        if rng.random() < 0.5:
            small = text if text.startswith("Image-") else text[0].lower() + text[1:]
            text = rng.choice(FRAMES[self.language]).format(q=text, l=small)
        if rng.random() < 0.5 and "<ref>" not in text:
            text = text.lower()
        if self.language == "zh" and rng.random() < 0.3:
            text = text.translate(_HALF_WIDTH)
        return text.rstrip(_MARKS) if rng.random() < 0.5 else text

    def word(self, english) -> str:
        """A colour, shape or position in the conversation's language."""
        return CHINESE.get(english, str(english)) if self.language == "zh" else str(english)

    def yes(self, truth: bool) -> str:
        """The answer to a yes/no question."""
        return ("是" if truth else "否") if self.language == "zh" else ("yes" if truth else "no")

    def picture(self, number: int) -> str:
        """A name of one of two pictures, e.g. 'the second image'."""
        return self.rng.choice(PICTURES[str(number)][self.language])

    def box(self, thing: Thing) -> str:
        """Grounding answer in upstream's form: thousandths of the picture, here in steps of 50."""
        corners = ", ".join(str(round(value * 20) * 50) for value in thing.box)
        name = (
            f"{self.word(thing.color)}的{self.word(thing.shape)}"
            if self.language == "zh"
            else f"{thing.color} {thing.shape}"
        )
        return f"<ref>{name}</ref><box>[[{corners}]]</box>"

    def describe(self, scene: Scene) -> str:
        """One sentence that names everything, in reading order."""
        if self.language == "zh":
            parts = [f"{self.word(t.position)}有一个{self.word(t.color)}的{self.word(t.shape)}" for t in scene.things]
            parts += [f"文字是{scene.text}"] if scene.text else []
            return "，".join(parts) + "。"
        parts = [f"{_article(t.color)} {t.color} {t.shape} in the {t.position}" for t in scene.things]
        parts += [f'the text "{scene.text}"'] if scene.text else []
        sentence = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
        return sentence[0].upper() + sentence[1:] + "."


@cache
def rewordings(wording: str) -> list[str]:
    """A row of `WORDINGS`' question with every combination of synonyms for its words."""
    parts = _SYNONYM.split(wording)  # text, word, text, word, ...
    return ["".join(choice) for choice in product(*(_SYNONYMS.get(part, [part]) for part in parts))]


def _plural(shape: str) -> str:
    return shape if language_of(shape) == "zh" else shape + ("es" if shape.endswith("s") else "s")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _unique(things: list[Thing], field: str) -> list[Thing]:
    """The things whose shape (or colour) no other thing has."""
    values = [getattr(thing, field) for thing in things]
    return [thing for thing in things if values.count(getattr(thing, field)) == 1]


def distinct(asked: Iterable[Question]) -> list[Question]:
    """Questions without those that repeat another one's text."""
    return list({question.text: question for question in asked}.values())


def scene_questions(scene: Scene, rng: random.Random, limit: int) -> list[Question]:
    """Up to `limit` different questions about one picture, at random, at most one description."""
    a, things = Asker(rng), scene.things
    pool: list[Question] = []
    for thing in _unique(things, "shape"):
        pool.append(a.ask("colour", "color of shape", a.word(thing.color), shape=thing.shape))
    for thing in _unique(things, "color"):
        pool.append(a.ask("shape", "shape of color", a.word(thing.shape), color=thing.color))
    for thing in things:
        pool.append(a.ask("colour", "color at", a.word(thing.color), position=thing.position))
        pool.append(a.ask("shape", "shape at", a.word(thing.shape), position=thing.position))
        pool.append(a.ask("position", "where", a.word(thing.position), color=thing.color, shape=thing.shape))
        pool.append(a.ask("yes/no", "is there", a.yes(True), color=thing.color, shape=thing.shape))
        if rng.random() < 0.7:
            pool.append(a.ask("box", "box", a.box(thing), color=thing.color, shape=thing.shape))
    looks = {(thing.color, thing.shape) for thing in things}
    for _ in range(max(1, len(things))):
        # Half of the absent ones share colour or shape with something that is there.
        color = rng.choice([t.color for t in things] if things and rng.random() < 0.5 else list(COLORS))
        shape = rng.choice([t.shape for t in things] if things and rng.random() < 0.5 else SHAPES)
        if (color, shape) not in looks:
            pool.append(a.ask("yes/no", "is there", a.yes(False), color=color, shape=shape))
    pool += [a.ask("count", "count", str(len(things)))] * 2
    color = rng.choice([t.color for t in things] if things and rng.random() < 0.8 else list(COLORS))
    shape = rng.choice([t.shape for t in things] if things and rng.random() < 0.8 else SHAPES)
    pool.append(a.ask("count", "count color", str(sum(t.color == color for t in things)), color=color))
    pool.append(a.ask("count", "count shape", str(sum(t.shape == shape for t in things)), shape=shape))
    pool.append(a.ask("yes/no", "is text", a.yes(bool(scene.text))))
    picked = rng.sample(pool, min(limit, len(pool)))
    if scene.text:
        picked[0] = a.ask("reading", "read", scene.text)
    if rng.random() < 0.4 and things and len(picked) > 1:
        thing = rng.choice(things)
        picked[1] = a.ask("box", "box", a.box(thing), color=thing.color, shape=thing.shape)
    if rng.random() < 0.5 and (things or scene.text):
        picked[-1] = a.ask("description", "describe", a.describe(scene))
    rng.shuffle(picked)
    return distinct(picked)


def label_questions(scene: Scene, rng: random.Random, limit: int) -> list[Question]:
    """Questions about the prints of a `scenes.labels_scene`, one for each place, and what is there beside them."""
    a = Asker(rng)
    cells = {
        POSITIONS[int(y * 3) * 3 + int(x * 3)]: print_.text for print_ in scene.prints for x, y in (print_.center,)
    }
    pool = [a.ask("reading", "read at", text, position=position) for position, text in cells.items()]
    for thing in scene.things:
        pool.append(a.ask("shape", "shape at", a.word(thing.shape), position=thing.position))
        pool.append(a.ask("position", "where", a.word(thing.position), color=thing.color, shape=thing.shape))
    return rng.sample(pool, min(limit, len(pool)))


def pair_questions(scenes: list[Scene], rng: random.Random, limit: int) -> list[Question]:
    """Questions about two pictures together."""
    a = Asker(rng)
    first, second = (scene.things for scene in scenes)
    pool: list[Question] = []
    if len(first) != len(second):
        pool += [a.ask("two pictures", "which more", "Image-1" if len(first) > len(second) else "Image-2")] * 2
    for n, things in ((1, first), (2, second)):
        pool.append(a.ask("two pictures", "count in image", str(len(things)), image=a.picture(n)))
        for thing in _unique(things, "shape"):
            color = a.word(thing.color)
            pool.append(a.ask("two pictures", "color in image", color, shape=thing.shape, image=a.picture(n)))
    for one in _unique(first, "shape"):
        for other in _unique(second, "shape"):
            if one.shape == other.shape:
                same = a.yes(one.color == other.color)
                pool += [a.ask("two pictures", "same color", same, shape=one.shape)] * 2
    return distinct(rng.sample(pool, min(limit, len(pool))))


def clip_questions(thing: Thing, motion: str, rng: random.Random, limit: int) -> list[Question]:
    """Questions about a clip in which `thing` moves."""
    a = Asker(rng)
    way = CHINESE_MOTIONS[motion] if a.language == "zh" else motion
    if a.language == "zh":
        story = f"一个{a.word(thing.color)}的{a.word(thing.shape)}{way}移动。"
    else:
        story = f"{_article(thing.color).capitalize()} {thing.color} {thing.shape} moves {way}."
    pool = [
        a.ask("motion", "motion", way, shape=thing.shape),
        a.ask("motion", "describe clip", story),
        a.ask("colour", "color of shape", a.word(thing.color), shape=thing.shape),
    ]
    return rng.sample(pool, min(limit, len(pool)))


def talk_questions(rng: random.Random, limit: int) -> list[Question]:
    """Small talk without a picture; now and then a question that would need one."""
    a, asked = Asker(rng), []
    for topic in rng.sample([*TALK, None], limit):
        if topic is None:
            text = rng.choice([q for q in scene_questions(objects_scene(rng), rng, 6) if q.kind != "yes/no"]).text
            language = language_of(text)
            asked.append(Question("talk", text, NO_PICTURE[language], language))
            continue
        answers, said = TALK[topic]["answer"], TALK[topic]["said"]
        language = a.language if a.language in answers else "en"
        text = rng.choice(said[language])
        text = text.lower().rstrip(_MARKS) if rng.random() < 0.3 else text
        asked.append(Question("talk", text, answers[language], language))
    return asked


def foreign_questions(rng: random.Random, limit: int) -> list[Question]:
    """Questions about things that the model was not taught, which it has to refuse."""
    a, asked = Asker(rng), []
    for template in rng.sample(FOREIGN[a.language], limit):
        names = {name: rng.choice(fillers[a.language]) for name, fillers in FILLERS.items()}
        text = a.vary(template.format(**names))
        asked.append(Question("foreign", text, UNKNOWN[a.language], a.language))
    return asked


def frame_marks(frames: int) -> str:
    """Marks in front of a first question about a clip."""
    return "".join(f"Frame{number}: <image>\n" for number in range(1, frames + 1))


def language_of(text: str) -> str:
    """'zh' for a text with a Chinese character, else 'en'."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
