"""Examples of the web demo in English and Chinese: a wording that the model was taught, and the answer that is true.

In: the scenes of the bundled pictures. Out: the rows of `examples.json`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from demo.tiny.questions import CHINESE, CHINESE_MOTIONS, Asker
from demo.tiny.scenes import Scene, Thing
from demo.tiny.wordings import WORDINGS


def rows(scenes: Mapping[str, Scene], clip: tuple[str, Thing, str]) -> list[dict]:
    """The examples, in the order of the page.

    Args:
        scenes: file name -> scene of a picture.
        clip: file name, the thing that moves, and the way it moves.
    Returns:
        A dict for each example: file names of its pictures and clip, and for each language the question, its label on
        the page, and the answer; or `box`, in thousandths of the picture, which the answer has to hold.
    """
    shapes, wide, two = (scenes[name] for name in ("shapes.png", "wide.png", "two.png"))
    circle, _, triangle = shapes.things
    name, thing, motion = clip
    more = "Image-1" if len(shapes.things) > len(two.things) else "Image-2"
    box = [round(value * 20) * 50 for value in circle.box]
    find = ("Find the {color} {shape}: a box", "找出{color}的{shape}：方框")
    return [
        _row("describe", ["shapes.png"], _descriptions(shapes)),
        {**_row("box", ["shapes.png"], (None, None), find, color=circle.color, shape=circle.shape), "box": box},
        _row("where", ["shapes.png"], _both(triangle.position), color=triangle.color, shape=triangle.shape),
        _row("read", ["wide.png"], (wide.prints[0].text,) * 2),
        _row("which more", ["shapes.png", "two.png"], (more, more)),
        {**_row("motion", [], (motion, CHINESE_MOTIONS[motion]), shape=thing.shape), "clip": name},
    ]


def _row(wording: str, pictures: list[str], answers: tuple, labels: tuple = ("{question}", "{question}"), **names):
    """An example; `names` fill the wording and the labels."""
    row = {"pictures": pictures, "clip": None}
    for language, label, answer in zip(("en", "zh"), labels, answers):
        words = names if language == "en" else {key: CHINESE[value] for key, value in names.items()}
        question = WORDINGS[wording][language][0].format(**words)
        row[language] = {"label": label.format(question=question, **words), "question": question, "answer": answer}
    return row


def _both(english: str) -> tuple[str, str]:
    return english, CHINESE[english]


def _descriptions(scene: Scene) -> tuple[str, str]:
    asker, texts = Asker(random.Random(0)), []
    for asker.language in ("en", "zh"):
        texts.append(asker.describe(scene))
    return tuple(texts)
