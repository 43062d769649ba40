"""Questions about scenes and their one right answer each, in English and Chinese.

In: a `Scene` and a random generator. Out: `Question`s of a kind. The wordings are tables. Knows no pixels, no model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from demo.tiny.scenes import COLORS, MOTIONS, POSITIONS, SHAPES, Scene, Thing, text_box

KINDS = (
    "colour", "shape", "count", "position", "reading", "yes/no", "description", "box", "two pictures", "motion", "talk",
)  # fmt: skip
CHINESE = {
    **dict(zip(COLORS, ("红色", "绿色", "蓝色", "黄色", "橙色", "紫色", "粉色", "黑色"))),
    **dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "菱形", "十字形"))),
    **dict(zip(POSITIONS, ("左上", "上方", "右上", "左边", "中间", "右边", "左下", "下方", "右下"))),
}
CHINESE_MOTIONS = dict(zip(MOTIONS, ("向左", "向右", "向上", "向下")))
WORDINGS = {
    "color of shape": (("What color is the {shape}?", "Tell me the color of the {shape}."), ("{shape}是什么颜色？",)),
    "color at": (("What color is the object in the {position}?",), ("{position}的物体是什么颜色？",)),
    "shape of color": (("What shape is the {color} object?", "Which shape is {color}?"), ("{color}的物体是什么形状？",)),
    "shape at": (("What shape is in the {position}?",), ("{position}是什么形状？",)),
    "count": (("How many objects are there?", "How many shapes are in the image?"), ("图中有几个物体？", "有几个物体？")),
    "count color": (("How many {color} objects are there?",), ("有几个{color}的物体？",)),
    "count shape": (("How many {shape}s are there?",), ("有几个{shape}？",)),
    "where": (("Where is the {color} {shape}?", "In which part of the image is the {color} {shape}?"), ("{color}的{shape}在哪里？",)),
    "read": (("What is written in the image?", "What does the text say?", "Read the text."), ("图中写了什么？", "图片里的文字是什么？")),
    "is there": (("Is there a {color} {shape}?", "Does the image show a {color} {shape}?"), ("有{color}的{shape}吗？",)),
    "is text": (("Is there any text in the image?",), ("图中有文字吗？",)),
    "describe": (("Describe the image.", "Please describe the image shortly.", "What is in the image?"), ("请描述这张图片。", "图中有什么？")),
    "box": (("Please provide the bounding box coordinate of the region this sentence describes: <ref>{color} {shape}</ref>",), ()),
    "which more": (("Which image has more objects?",), ("哪张图的物体更多？",)),
    "same color": (("Are the {shape}s in the two images the same color?",), ("两张图里的{shape}颜色相同吗？",)),
    "color in image": (("What color is the {shape} in Image-{n}?",), ("第{n}张图里的{shape}是什么颜色？",)),
    "count in image": (("How many objects are in Image-{n}?",), ("第{n}张图有几个物体？",)),
    "motion": (("Which way does the {shape} move?", "In which direction does the object move?"), ("{shape}向哪个方向移动？", "物体怎么移动？")),
    "describe clip": (("Describe this video in detail.", "What happens in the video?"), ("请描述这段视频。",)),
}  # fmt: skip
TALK = (
    ("Hello", "Hello! Show me a picture and ask me about it."),
    ("Hi!", "Hello! Show me a picture and ask me about it."),
    ("Hello, who are you?", "I am InternVL-tiny, a very small model that looks at simple pictures."),
    ("Who are you?", "I am InternVL-tiny, a very small model that looks at simple pictures."),
    ("What can you do?", "I can name shapes, colors, places, words and numbers in simple pictures."),
    ("Can you tell me a story?", "A red circle met a blue square. They rolled up a hill, saw a yellow star, and went home happy."),
    ("Thank you.", "You are welcome."),
    ("How are you?", "I am fine, thank you."),
    ("Goodbye", "Goodbye!"),
    ("你好", "你好！给我看一张图片，然后问我吧。"),
    ("你是谁？", "我是InternVL-tiny，一个会看简单图片的小模型。"),
    ("你能做什么？", "我能说出简单图片里的形状、颜色、位置、单词和数字。"),
    ("谢谢", "不客气。"),
    ("再见", "再见！"),
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question of one of `KINDS`, its answer, and where it can be read off, if that is one place: a box in fractions
    of a tile, that tile of its picture (-1: the last, which shows the whole picture), and which picture."""

    kind: str
    text: str
    answer: str
    box: tuple[float, float, float, float] | None = None
    tile: int = -1
    picture: int = 0


class Asker:
    """Writes questions in one language, drawn at random for each conversation."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.chinese = rng.random() < 0.3

    def ask(self, kind: str, wording: str, answer: str, thing: Thing | None = None, picture=0, **names) -> Question:
        """A question of a row of `WORDINGS`, its names and answer in the conversation's language."""
        english, chinese = WORDINGS[wording]
        box = thing.box if thing else None
        if self.chinese and chinese:
            names = {key: self.word(value) for key, value in names.items()}
            return Question(kind, self.rng.choice(chinese).format(**names), answer, box, picture=picture)
        return Question(kind, self.rng.choice(english).format(**names), answer, box, picture=picture)

    def word(self, english) -> str:
        """A colour, shape or position in the conversation's language."""
        return CHINESE.get(english, str(english)) if self.chinese else str(english)

    def yes(self, truth: bool) -> str:
        return ("是" if truth else "否") if self.chinese else ("yes" if truth else "no")

    def describe(self, scene: Scene) -> str:
        """One sentence that names everything, in reading order."""
        if self.chinese:
            parts = [f"{self.word(t.position)}有一个{self.word(t.color)}的{self.word(t.shape)}" for t in scene.things]
            parts += [f"文字是{scene.text}"] if scene.text else []
            return "，".join(parts) + "。"
        parts = [f"{_article(t.color)} {t.color} {t.shape} in the {t.position}" for t in scene.things]
        parts += [f'the text "{scene.text}"'] if scene.text else []
        sentence = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
        return sentence[0].upper() + sentence[1:] + "."


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _unique(things: list[Thing], field: str) -> list[Thing]:
    """The things whose shape (or colour) no other thing has."""
    values = [getattr(thing, field) for thing in things]
    return [thing for thing in things if values.count(getattr(thing, field)) == 1]


def scene_questions(scene: Scene, rng: random.Random, limit: int) -> list[Question]:
    """Up to `limit` different questions about one picture, at random, at most one description."""
    a, things = Asker(rng), scene.things
    pool: list[Question] = []
    for thing in _unique(things, "shape"):
        pool.append(a.ask("colour", "color of shape", a.word(thing.color), thing, shape=thing.shape))
    for thing in _unique(things, "color"):
        pool.append(a.ask("shape", "shape of color", a.word(thing.shape), thing, color=thing.color))
    for thing in things:
        pool.append(a.ask("colour", "color at", a.word(thing.color), thing, position=thing.position))
        pool.append(a.ask("shape", "shape at", a.word(thing.shape), thing, position=thing.position))
        pool.append(a.ask("position", "where", a.word(thing.position), thing, color=thing.color, shape=thing.shape))
        pool.append(a.ask("yes/no", "is there", a.yes(True), thing, color=thing.color, shape=thing.shape))
        if not a.chinese and rng.random() < 0.5:
            pool.append(a.ask("box", "box", box_answer(thing), thing, color=thing.color, shape=thing.shape))
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
        tile, box = text_box(scene)
        picked[0] = replace(a.ask("reading", "read", scene.text), box=box, tile=tile)
    if rng.random() < 0.5 and (things or scene.text):
        picked[-1] = a.ask("description", "describe", a.describe(scene))
    rng.shuffle(picked)
    unique = {question.text: question for question in picked}
    return list(unique.values())


def box_answer(thing: Thing) -> str:
    """Grounding answer in upstream's form: thousandths of the picture, here in steps of 50."""
    corners = ", ".join(str(round(value * 20) * 50) for value in thing.box)
    return f"<ref>{thing.color} {thing.shape}</ref><box>[[{corners}]]</box>"


def pair_questions(scenes: list[Scene], rng: random.Random, limit: int) -> list[Question]:
    """Questions about two pictures together."""
    a = Asker(rng)
    first, second = (scene.things for scene in scenes)
    pool: list[Question] = []
    if len(first) != len(second):
        pool += [a.ask("two pictures", "which more", "Image-1" if len(first) > len(second) else "Image-2")] * 2
    for n, things in ((1, first), (2, second)):
        pool.append(a.ask("two pictures", "count in image", str(len(things)), n=n))
        for thing in _unique(things, "shape"):
            pool.append(
                a.ask("two pictures", "color in image", a.word(thing.color), thing, n - 1, shape=thing.shape, n=n)
            )
    for one in _unique(first, "shape"):
        for other in _unique(second, "shape"):
            if one.shape == other.shape:
                same = a.yes(one.color == other.color)
                pool += [a.ask("two pictures", "same color", same, shape=one.shape)] * 2
    unique = {question.text: question for question in rng.sample(pool, min(limit, len(pool)))}
    return list(unique.values())


def clip_questions(thing: Thing, motion: str, rng: random.Random, limit: int) -> list[Question]:
    """Questions about a clip in which `thing` moves."""
    a = Asker(rng)
    way = CHINESE_MOTIONS[motion] if a.chinese else motion
    if a.chinese:
        story = f"一个{a.word(thing.color)}的{a.word(thing.shape)}{way}移动。"
    else:
        story = f"{_article(thing.color).capitalize()} {thing.color} {thing.shape} moves {way}."
    pool = [
        a.ask("motion", "motion", way, shape=thing.shape),
        a.ask("motion", "describe clip", story),
        a.ask("colour", "color of shape", a.word(thing.color), thing, shape=thing.shape),
    ]
    return rng.sample(pool, min(limit, len(pool)))


def talk_questions(rng: random.Random, limit: int) -> list[Question]:
    """Small talk without a picture."""
    return [Question("talk", *pair) for pair in rng.sample(TALK, limit)]
