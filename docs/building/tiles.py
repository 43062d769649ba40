"""The pictures of tiles in `docs/preprocessing.md`, cut and drawn by the package's own functions.

    python -m docs.building.tiles        writes docs/pictures/tiles-*.png

In: pictures of demo/assets, and a larger scene drawn in the same way. Out: each with its grid, and beside it the tiles
that the model sees. A test holds the files to it.
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from demo.tiny import scenes
from paddle_internvl import draw_boxes
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.grid import TILE_SIDE, TileGrid, choose_grid
from paddle_internvl.preprocess.tiles import cut
from paddle_internvl.prompt.grounding import Box

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/pictures"
DRAWN = {  # name -> bundled picture, or width and height of a scene; max_num
    "one": ("shapes.png", 12),
    "wide": ("wide.png", 12),
    "twelve": ((1600, 1200), 12),
    "six": ((1600, 1200), 6),
}
_THINGS = (
    ("top left", "circle", "red"), ("top right", "star", "orange"), ("center", "square", "blue"),
    ("bottom left", "cross", "purple"), ("bottom right", "triangle", "green"),
)  # fmt: skip
_LEFT, _TILE, _GAP, _GROUND = 300, 64, 5, (200, 206, 214)  # pixels, and what lies behind the tiles


def scene(width: int, height: int) -> Image.Image:
    """A picture of five shapes, as the bundled ones are drawn."""
    rng = random.Random(1)
    things = [scenes.place(rng, *thing) for thing in _THINGS]
    return scenes.render(scenes.Scene(width, height, things, background=(238, 242, 246), seed=1))


def numbered(image: Image.Image, grid: TileGrid) -> Image.Image:
    """The picture stretched to its grid, every tile a numbered box."""
    scale = _LEFT / (TILE_SIDE * max(grid.columns, grid.rows))
    side = round(TILE_SIDE * scale)
    places = [(row * side, column * side) for row in range(grid.rows) for column in range(grid.columns)]
    boxes = [Box(str(i + 1), x, y, x + side - 1, y + side - 1) for i, (y, x) in enumerate(places)]
    return draw_boxes(image.resize((side * grid.columns, side * grid.rows)), boxes)


def draw(source: str | tuple[int, int], max_num: int) -> Image.Image:
    """A picture's grid, and its tiles row by row, the thumbnail below them."""
    image = open_image(ROOT / "demo/assets" / source) if isinstance(source, str) else scene(*source)
    grid = choose_grid(*image.size, max_num=max_num)
    left, step = numbered(image, grid), _TILE + _GAP
    height = max(left.height, step * (grid.rows + grid.thumbnail) - _GAP)
    sheet = Image.new("RGB", (left.width + 4 * _GAP + step * grid.columns, height + 2 * _GAP), _GROUND)
    sheet.paste(left, (_GAP, _GAP))
    for i, tile in enumerate(cut(image, grid)):
        row, column = divmod(i, grid.columns)
        sheet.paste(tile.resize((_TILE, _TILE)), (left.width + 4 * _GAP + step * column, _GAP + step * row))
    return sheet.quantize(64)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, how in DRAWN.items():
        draw(*how).save(FOLDER / f"tiles-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
