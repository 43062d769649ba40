"""Tiling in threads: bit for bit the tiles of one resize of the whole picture, for any size and grid."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl import load_image, load_video
from paddle_internvl.preprocess import tiling
from paddle_internvl.preprocess.frames import get_index
from paddle_internvl.preprocess.grid import TileGrid, choose_grid
from paddle_internvl.preprocess.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from paddle_internvl.preprocess.tiling import all_pixels, tile_pixels


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def by_definition(image, grid, side):
    """Upstream's tiles: one resize, crops, torchvision's ToTensor and Normalize in float32."""
    resized = image.resize((side * grid.columns, side * grid.rows), Image.Resampling.BICUBIC)
    corners = [(x * side, y * side) for y in range(grid.rows) for x in range(grid.columns)]
    tiles = [resized.crop((x, y, x + side, y + side)) for x, y in corners]
    if grid.thumbnail:
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    levels = np.stack([np.asarray(tile) for tile in tiles]).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    mean, deviation = (np.float32(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (levels - mean) / deviation


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    side=st.sampled_from([14, 28, 57]),
    threads=st.integers(2, 6),
)
@example(size=(2, 240), grid=(1, 2), side=14, threads=2)  # so high that Pillow resizes columns first
def test_any_picture(size, grid, side, threads):
    image, grid = picture(*size), TileGrid(*grid, thumbnail=grid != (1, 1))
    expected = by_definition(image, grid, side)
    np.testing.assert_array_equal(tile_pixels(image, grid, side, threads), expected)
    np.testing.assert_array_equal(tile_pixels(image, grid, side, threads=1), expected)
    for count in (1, threads):
        levels = tile_pixels(image, grid, side, count, np.uint8)
        assert levels.dtype == np.uint8
        np.testing.assert_array_equal(normalized(levels), expected)


def test_thirteen_tiles():
    image = picture(1600, 1200)
    grid = choose_grid(*image.size)
    assert grid.tiles == 13
    expected = by_definition(image, grid, 448)
    np.testing.assert_array_equal(tile_pixels(image, grid, 448, threads=2), expected)
    np.testing.assert_array_equal(load_image(image).numpy(), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_several_pictures_keep_their_order(count, monkeypatch):
    monkeypatch.setattr(tiling.runtime, "cpu_cores", lambda: 2)
    pictures = [picture(600 + 10 * i, 500, seed=i) for i in range(count)]  # large enough for threads
    grids = [TileGrid(1 + i % 3, 1 + i % 2, thumbnail=i > 0) for i in range(count)]
    for made, image, grid in zip(all_pixels(pictures, grids, 28), pictures, grids):
        np.testing.assert_array_equal(made, by_definition(image, grid, 28))


def test_frames_of_a_clip():
    frames = [picture(90, 60, seed=i) for i in range(5)]
    pixels, counts = load_video(frames, num_segments=5, input_size=28)
    shown = [frames[i] for i in get_index(None, 1.0, 4, num_segments=5)]
    expected = [by_definition(frame, TileGrid(1, 1, False), 28) for frame in shown]
    assert counts == [1] * 5
    np.testing.assert_array_equal(pixels.numpy(), np.concatenate(expected))
