"""Rendered scenes: coloured shapes on a 3 x 3 board, printed words and numbers, and clips in which a shape moves.

In: a random generator. Out: a `Scene` (what is where) and its PIL picture.
Knows no question, no tokenizer and no model.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 448  # a scene that needs no tiling is one tile
COLORS = {
    "red": (214, 40, 40), "green": (42, 157, 60), "blue": (40, 84, 214), "yellow": (242, 208, 40),
    "orange": (244, 128, 30), "purple": (138, 56, 178), "pink": (250, 150, 190), "black": (28, 28, 28),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
WORDS = (
    "CAT", "DOG", "SUN", "MAP", "BUS", "CUP", "FOX", "HAT", "KEY", "BOX", "TEA", "ICE", "JAM", "OWL", "PEN", "ZOO",
    "BIRD", "FISH", "LION", "MOON", "STAR", "TREE", "RAIN", "SNOW", "CAKE", "MILK", "BOOK", "DOOR", "SHIP", "PARK",
    "STOP", "EXIT", "OPEN", "SALE", "TAXI", "HOTEL", "WATER", "BREAD", "APPLE", "TIGER", "QUIET", "MUSIC",
)  # fmt: skip
MOTIONS = ("left", "right", "up", "down")
FONT_SIZE = 58  # pixels; at half of it the model has not learnt to read


@dataclass(frozen=True)
class Thing:
    """A shape: its kind, colour and cell of the 3 x 3 board, and its box in fractions of the picture."""

    shape: str
    color: str
    position: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Print:
    """A printed word or number and its centre in fractions of the picture."""

    text: str
    center: tuple[float, float]


@dataclass
class Scene:
    """What a picture shows."""

    width: int
    height: int
    things: list[Thing] = field(default_factory=list)
    prints: list[Print] = field(default_factory=list)
    background: tuple[int, int, int] = (240, 240, 240)
    ink: tuple[int, int, int] = (20, 20, 20)
    noise: int = 0
    seed: int = 0

    @property
    def text(self) -> str:
        """The word or number a question may ask for; '' where nothing is printed."""
        return self.prints[0].text if self.prints else ""


def outline(shape: str, box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """Corner points of a shape in a box of pixels (a circle is drawn as an ellipse instead)."""
    left, top, right, bottom = box
    cx, cy, rx, ry = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    unit = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
        "cross": [(-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
                  (0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)],
        "star": [(r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5))
                 for i, r in enumerate([1.0, 0.42] * 5)],
    }[shape]  # fmt: skip
    return [(cx + x * rx, cy + y * ry) for x, y in unit]


def place(rng: random.Random, position: str, shape: str, color: str) -> Thing:
    """A shape in a cell of the board, a little off its centre."""
    index = POSITIONS.index(position)
    side = rng.uniform(0.19, 0.26)
    cx = (index % 3 + 0.5) / 3 + rng.uniform(-0.03, 0.03)
    cy = (index // 3 + 0.5) / 3 + rng.uniform(-0.03, 0.03)
    return Thing(shape, color, position, (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2))


def random_things(rng: random.Random, count: int, free: list[str] | None = None) -> list[Thing]:
    """`count` shapes in different cells, in reading order; no two alike in both shape and colour."""
    positions = rng.sample(free or list(POSITIONS), count)
    # Colours and shapes repeat often enough for counting questions to have answers above one.
    colors = rng.choices(list(COLORS), k=rng.randint(1, max(1, count)))
    shapes = rng.choices(SHAPES, k=rng.randint(1, max(1, count)))
    looks: dict[tuple[str, str], None] = {}  # a set of texts has another order in every process
    while len(looks) < count:
        look = (rng.choice(shapes), rng.choice(colors))
        if look in looks:
            look = (rng.choice(SHAPES), rng.choice(list(COLORS)))
        looks[look] = None
    things = [
        place(rng, position, *look) for position, look in zip(positions, sorted(looks, key=lambda _: rng.random()))
    ]
    return sorted(things, key=lambda thing: POSITIONS.index(thing.position))


def random_text(rng: random.Random) -> str:
    """A word of the list, or a number below 1000."""
    return rng.choice(WORDS) if rng.random() < 0.5 else str(rng.randint(0, 10 ** rng.randint(1, 3) - 1))


def _canvas(rng: random.Random, width: int, height: int) -> Scene:
    light = tuple(rng.randint(215, 255) for _ in range(3))
    ink = tuple(rng.randint(0, 60) for _ in range(3))
    noise = rng.choice((0, 0, 4, 8))
    return Scene(width, height, background=light, ink=ink, noise=noise, seed=rng.randrange(1 << 30))


def objects_scene(rng: random.Random) -> Scene:
    """One to four shapes in one tile."""
    side = SIDE if rng.random() < 0.7 else rng.randint(336, 600)
    scene = _canvas(rng, side, side)
    scene.things = random_things(rng, rng.choice((1, 2, 2, 3, 3, 4)))
    return scene


def crowded_scene(rng: random.Random) -> Scene:
    """Five to eight shapes in one tile: more than in any scene that the bundled checkpoint was trained on."""
    scene = _canvas(rng, SIDE, SIDE)
    scene.things = random_things(rng, rng.choice((5, 6, 7, 8)))
    return scene


def text_scene(rng: random.Random) -> Scene:
    """A printed word or number across the middle row, and up to two shapes above or below."""
    scene = _canvas(rng, SIDE, SIDE)
    scene.prints = [Print(random_text(rng), (rng.uniform(0.3, 0.7), rng.uniform(0.42, 0.58)))]
    scene.things = random_things(rng, rng.choice((0, 1, 2)), list(POSITIONS[:3] + POSITIONS[6:]))
    return scene


def wide_scene(rng: random.Random) -> Scene:
    """A large picture: shapes as big as ever, but print that only tiles show large enough to read."""
    columns, rows = rng.choice(((2, 1), (1, 2), (3, 1), (2, 2)))
    scene = _canvas(rng, SIDE * columns, SIDE * rows)
    column, row = rng.randrange(columns), rng.randrange(rows)  # print stays inside one tile
    x, y = (column + rng.uniform(0.35, 0.65)) / columns, (row + rng.uniform(0.2, 0.8)) / rows
    scene.prints = [Print(random_text(rng), (x, y))]
    cell = int(y * 3) * 3 + int(x * 3)
    free = [p for i, p in enumerate(POSITIONS) if abs(i // 3 - cell // 3) > 0]
    scene.things = random_things(rng, rng.choice((0, 1, 2)), free)
    return scene


def wide_labels_scene(rng: random.Random) -> Scene:
    """A large picture with a print in each of two to four of its tiles, in different cells of the board."""
    columns, rows = rng.choice(((2, 1), (1, 2), (3, 1), (2, 2)))
    scene = _canvas(rng, SIDE * columns, SIDE * rows)
    cells = set()
    tiles = [(column, row) for column in range(columns) for row in range(rows)]
    for column, row in rng.sample(tiles, rng.randint(2, columns * rows)):
        x, y = (column + rng.uniform(0.35, 0.65)) / columns, (row + rng.uniform(0.2, 0.8)) / rows
        cell = int(y * 3) * 3 + int(x * 3)
        if cell not in cells:
            cells.add(cell)
            scene.prints.append(Print(random_text(rng), (x, y)))
    return scene


def labels_scene(rng: random.Random) -> Scene:
    """Three to six short prints, each in a cell of its own, and up to two shapes between them."""
    scene = _canvas(rng, SIDE, SIDE)
    cells = rng.sample(range(9), rng.randint(3, 6) + 2)
    scene.things = random_things(rng, rng.choice((0, 1, 2)), [POSITIONS[cell] for cell in cells[:2]])
    for cell in cells[2:]:
        x, y = (cell % 3 + rng.uniform(0.42, 0.58)) / 3, (cell // 3 + rng.uniform(0.35, 0.65)) / 3
        text = rng.choice(WORDS[:16]) if rng.random() < 0.2 else str(rng.randint(0, 10 ** rng.randint(1, 3) - 1))
        scene.prints.append(Print(text, (x, y)))
    return scene


def clip(rng: random.Random, frames: int) -> tuple[list[Scene], Thing, str]:
    """A shape that crosses the picture: its scenes in time, the shape, and which way it moves."""
    motion = rng.choice(MOTIONS)
    shape, color, lane = rng.choice(SHAPES), rng.choice(list(COLORS)), rng.uniform(0.3, 0.7)
    base = _canvas(rng, SIDE, SIDE)
    side, start, end = 0.24, rng.uniform(0.14, 0.3), rng.uniform(0.7, 0.86)
    if motion in ("left", "up"):
        start, end = end, start
    scenes = []
    for k in range(frames):
        along = start + (end - start) * k / max(frames - 1, 1)
        cx, cy = (along, lane) if motion in ("left", "right") else (lane, along)
        thing = Thing(shape, color, "center", (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2))
        scenes.append(Scene(SIDE, SIDE, [thing], background=base.background, noise=base.noise, seed=base.seed + k))
    return scenes, scenes[0].things[0], motion


def _jitter(color: tuple[int, int, int], rng: random.Random) -> tuple[int, ...]:
    return tuple(min(255, max(0, level + rng.randint(-14, 14))) for level in color)


def _pixels(thing: Thing, scene: Scene) -> tuple[float, float, float, float]:
    left, top, right, bottom = thing.box
    return left * scene.width, top * scene.height, right * scene.width, bottom * scene.height


def render(scene: Scene) -> Image.Image:
    """The picture of a scene; the same scene gives the same pixels (with the same Pillow)."""
    rng = random.Random(scene.seed)
    image = Image.new("RGB", (scene.width, scene.height), scene.background)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        fill = _jitter(COLORS[thing.color], rng)
        if thing.shape == "circle":
            draw.ellipse(_pixels(thing, scene), fill=fill)
        else:
            draw.polygon(outline(thing.shape, _pixels(thing, scene)), fill=fill)
    font = ImageFont.load_default(FONT_SIZE)
    for print_ in scene.prints:
        origin = _text_origin(print_, scene, font)
        draw.text(origin, print_.text, fill=scene.ink, font=font, anchor="mm", stroke_width=2)
    if scene.noise:
        grain = np.random.default_rng(scene.seed).integers(
            -scene.noise, scene.noise + 1, (scene.height, scene.width, 1)
        )
        image = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    return image


def _text_origin(print_: Print, scene: Scene, font) -> tuple[float, float]:
    """A print's centre in pixels, moved so that it stays inside the tile it falls into."""
    half = font.getlength(print_.text) / 2 + 6
    x, y = print_.center[0] * scene.width, print_.center[1] * scene.height
    tile = int(x // SIDE) * SIDE
    return min(max(x, tile + half), tile + SIDE - half), y
