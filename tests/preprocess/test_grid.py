"""Tile grids against upstream's `dynamic_preprocess` (golden of thousands of sizes) and by hand."""

import zlib

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.preprocess.grid import choose_grid, find_closest_aspect_ratio, grid_candidates
from paddle_internvl.preprocess.tiles import dynamic_preprocess
from tests.random_checkpoints import ROOT


def test_every_size_as_upstream():
    golden = np.load(ROOT / "tests/goldens/grids.npz")
    assert len(golden["sizes"]) > 2000
    for (width, height), row in zip(golden["sizes"].tolist(), golden["grids"].tolist()):
        for (least, most), expected in zip(golden["limits"].tolist(), row):
            grid = choose_grid(width, height, least, most)
            assert [grid.columns, grid.rows, grid.tiles] == expected, (width, height, least, most)


@pytest.mark.parametrize(
    ("size", "most", "grid", "tiles"),
    [
        ((448, 448), 12, (1, 1), 1),
        ((800, 800), 12, (2, 2), 5),
        ((896, 448), 12, (2, 1), 3),
        ((1280, 720), 12, (4, 2), 9),
        ((1280, 720), 6, (2, 1), 3),
        ((640, 480), 12, (4, 3), 13),
        ((3000, 1000), 12, (6, 2), 13),
        ((100, 1000), 6, (1, 6), 7),
    ],
)
def test_grids_by_hand(size, most, grid, tiles):
    chosen = choose_grid(*size, max_num=most)
    assert (chosen.columns, chosen.rows) == grid and chosen.tiles == tiles


def test_no_thumbnail():
    assert choose_grid(896, 448, use_thumbnail=False).tiles == 2


def test_count_and_cropping_share_the_choice():
    for size in ((1, 1), (1, 700), (700, 1), (997, 331), (450, 449)):
        image = Image.new("RGB", size)
        for most in (1, 5, 12):
            tiles = dynamic_preprocess(image, max_num=most, use_thumbnail=True)
            assert len(tiles) == choose_grid(*size, max_num=most).tiles
            assert {tile.size for tile in tiles} == {(448, 448)}


def test_order_of_candidates_is_that_of_cpython():
    """Upstream's order among grids of one area; the checksum is the same on CPython 3.8 to 3.13."""
    orders = [grid_candidates(least, most) for most in range(1, 41) for least in range(1, most + 1)]
    assert zlib.crc32(repr(orders).encode()) == 1342890984


def test_candidates():
    assert len(grid_candidates(1, 12)) == 35 and len(grid_candidates(1, 6)) == 14
    with pytest.raises(ValueError, match="min_num=3, max_num=2"):
        grid_candidates(3, 2)
    with pytest.raises(ValueError, match="0 x 5 pixels"):
        choose_grid(0, 5)


def test_ties_go_to_the_later_grid_only_with_enough_pixels():
    ratios = [(1, 1), (2, 2)]
    assert find_closest_aspect_ratio(1.0, ratios, 634, 634, 448) == (2, 2)  # 634^2 > 0.5 * 448^2 * 4
    assert find_closest_aspect_ratio(1.0, ratios, 633, 633, 448) == (1, 1)
