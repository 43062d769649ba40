"""The bundled pictures, the questions of `make demo` and the examples of the web demo, rendered from fixed seeds.

python -m demo.tiny.assets FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from PIL import Image

from demo.tiny import examples, scenes
from demo.tiny.scenes import Print, Scene, Thing, place
from demo.tiny.wordings import TALK


def _scene(
    width: int, height: int, *things: tuple[str, str, str], prints: tuple[Print, ...] = (), seed: int = 1
) -> Scene:
    """A scene of (position, colour, shape) things on a light background."""
    rng = random.Random(seed)
    placed: list[Thing] = [place(rng, position, shape, color) for position, color, shape in things]
    return Scene(width, height, placed, list(prints), background=(238, 242, 246), seed=seed)


def _star(cx: float) -> Thing:
    return Thing("star", "yellow", "center", (cx - 0.12, 0.38, cx + 0.12, 0.62))


def _clip() -> list[Image.Image]:
    """A yellow star that crosses the picture from left to right."""
    frames = []
    for k in range(12):
        thing = _star(0.2 + 0.6 * k / 11)
        frames.append(scenes.render(Scene(scenes.SIDE, scenes.SIDE, [thing], background=(238, 242, 246), seed=7)))
    return frames


def make(folder: Path) -> None:
    """Write pictures, a clip, tour.json and examples.json."""
    folder.mkdir(parents=True, exist_ok=True)
    side = scenes.SIDE
    pictures = {
        "shapes.png": _scene(side, side, ("top left", "red", "circle"), ("center", "blue", "square"),
                             ("bottom right", "green", "triangle")),
        "two.png": _scene(side, side, ("left", "purple", "star"), ("right", "orange", "diamond"), seed=2),
        "sign.png": _scene(side, side, ("top", "pink", "cross"), prints=(Print("TIGER", (0.5, 0.5)),), seed=3),
        "wide.png": _scene(3 * side, side, ("top left", "black", "square"),
                           prints=(Print("STOP", (0.8, 0.6)),), seed=4),
    }  # fmt: skip
    for name, scene in pictures.items():
        scenes.render(scene).save(folder / name, optimize=True)
    first, *rest = _clip()
    first.save(folder / "clip.gif", save_all=True, append_images=rest, duration=120, loop=0)
    tour = [
        {"pictures": [], "questions": [["Hello, who are you?", TALK["name"]["answer"]["en"]]]},
        {"pictures": ["shapes.png"], "questions": [
            ["Describe the image.",
             "A red circle in the top left, a blue square in the center and a green triangle in the bottom right."],
            ["What color is the object in the center?", "blue"],
            ["What shape is red?", "circle"],
            ["Where is the green triangle?", "bottom right"],
            ["How many objects are there?", "3"],
            ["Is there a yellow star?", "no"],
            ["蓝色的正方形在哪里？", "中间"],
        ]},
        {"pictures": ["sign.png"], "questions": [["What does the text say?", "TIGER"]]},
        {"pictures": ["wide.png"], "questions": [["Read the text.", "STOP"]]},
        {"pictures": ["shapes.png", "two.png"], "questions": [["Which image has more objects?", "Image-1"]]},
        {"pictures": ["clip.gif"], "questions": [["Which way does the star move?", "right"]]},
    ]  # fmt: skip
    rows = examples.rows(pictures, ("clip.gif", _star(0.2), "right"))
    for name, table in (("tour.json", tour), ("examples.json", rows)):
        (folder / name).write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)
