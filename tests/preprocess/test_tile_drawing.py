"""Tiles drawn: borders where they are cut, numbers in their tiles, and a sheet that says what `choose_grid` does."""

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.preprocess.grid import TileGrid, choose_grid
from paddle_internvl.preprocess.tile_drawing import draw_grid, draw_tiles
from paddle_internvl.preprocess.tiles import cut

GRAY = 128


def gray(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (GRAY,) * 3)


def changed(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != GRAY).any(axis=2)


@pytest.mark.parametrize("columns, rows", [(1, 1), (3, 1), (1, 2), (4, 3)])
def test_borders_are_where_tiles_are_cut(columns, rows):
    plain, grid = gray(480, 360), TileGrid(columns, rows, False)
    drawn = draw_grid(plain, grid)
    for tile in cut(drawn, grid, 120):  # as the model's are cut: nothing of a border lies inside
        inner = np.asarray(tile).astype(int)[40:-10, 40:-10]  # the number stands in the corner
        assert abs(inner - GRAY).max() <= 2
    for column in range(1, columns):
        assert (np.asarray(drawn)[50:, round(column * 480 / columns)] == 255).all(axis=1).any()
    assert changed(drawn).any() == (columns * rows > 1)
    assert not changed(plain).any(), "the picture itself is drawn on"


def test_each_tile_has_its_own_number():
    drawn = np.asarray(draw_grid(gray(400, 200), TileGrid(4, 2, False), 256))
    corners = {drawn[y + 4 : y + 90, x + 4 : x + 90].tobytes() for x in range(0, 400, 100) for y in (0, 100)}
    assert len(corners) == 8
    again = np.asarray(draw_grid(gray(400, 200), TileGrid(4, 2, False), 1024))
    assert (drawn[:, 4:96] != again[:, 4:96]).any(), "tokens are not written"


def test_numbers_that_do_not_fit_are_left_out():
    drawn = np.asarray(draw_grid(gray(3, 900), TileGrid(1, 12, False)))
    assert (drawn[20:60] == GRAY).all() and (drawn[75] == 255).all()


@pytest.mark.parametrize(
    "size, thumbnail", [((1000, 500), True), ((1000, 500), False), ((40, 40), True), ((3, 90), True)]
)
def test_a_sheet_holds_picture_and_thumbnail(size, thumbnail):
    picture = gray(*size)
    grid = choose_grid(*size, 1, 12, 448, thumbnail)
    sheet = draw_tiles(picture, grid, 256)
    scale = 896 / max(size)
    columns = max(1, round(size[0] * scale))
    beside = np.asarray(sheet)[16:272, 16 + columns + 16 :]
    seen = (beside == GRAY).all(axis=2).sum() if beside.size else 0
    assert (seen > 0.5 * 256 * 256) == grid.thumbnail
    corner = np.asarray(sheet)[16 + round(size[1] * scale) - 8, 16 + columns - 1]
    assert (corner == GRAY).all(), "the picture is scaled to the sheet's side"


def test_a_sheet_tells_the_total():
    one, other = (np.asarray(draw_tiles(gray(900, 900), TileGrid(1, 1, False), tokens)) for tokens in (256, 64))
    foot = 896 + 2 * 16
    assert one.shape == other.shape and (one[foot:] != other[foot:]).any() and (one[200:foot] == other[200:foot]).all()
