"""Tiling in threads: pictures to normalised tiles, bit for bit those of `tiles.cut` and `pixels.normalize_all`.

In: RGB PIL images and their grids. Out: float32 tiles.

Pillow resizes in two passes, along rows and then along columns, and rounds to bytes between them. Rows are independent
in the first pass and columns in the second, so each pass is divided among threads; one resize with Pillow's `box` would
start at a rounded position and differ. Pillow and numpy release the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from paddle_internvl import runtime
from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.pixels import fill_pixels
from paddle_internvl.preprocess.tiles import cut

_MIN_PIXELS = 1 << 18  # of a picture and its tiles, for threads to pay
_BANDS = 2  # of rows, for each thread
_MAX_ASPECT = 100  # height / width, above which Pillow resizes columns first


def tile_pixels(
    image: Image.Image, grid: TileGrid, side: int, threads: int | None = None, dtype: type = np.float32
) -> np.ndarray:
    """The tiles of one picture.

    Args:
        image: RGB PIL image.
        grid: of the picture.
        side: S, the tile side in pixels.
        threads: number of threads; None: one for each core, or one for a small picture.
        dtype: np.float32: normalised; np.uint8: bytes, a quarter of the memory, for `pixels.normalized`.
    Returns:
        [T, 3, S, S], row by row, the thumbnail last.
    """
    out = np.empty((grid.tiles, 3, side, side), dtype)
    if threads is None:
        pixels = image.width * image.height + grid.tiles * side * side
        threads = runtime.cpu_cores() if pixels >= _MIN_PIXELS else 1
    if threads == 1 or image.height > _MAX_ASPECT * image.width:
        for tile, pixels in zip(cut(image, grid, side), out):
            fill_pixels(np.asarray(tile), pixels)
        return out
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_thumbnail, image, side, out[-1])] if grid.thumbnail else []
        edges = _edges(image.height, _BANDS * threads)
        bands = list(pool.map(lambda rows: _resize_rows(image, rows, side * grid.columns), zip(edges, edges[1:])))
        parts = _edges(side, -(-threads // grid.columns))
        for column in range(grid.columns):
            tiles = out[column : grid.columns * grid.rows : grid.columns]
            for part in zip(parts, parts[1:]):
                jobs.append(pool.submit(_fill_column, bands, column * side, part, tiles))
        for job in jobs:
            job.result()
    return out


def all_pixels(
    pictures: Sequence[Image.Image], grids: Sequence[TileGrid], side: int, dtype: type = np.float32
) -> list[np.ndarray]:
    """`tile_pixels` of each picture; one thread for each picture where there are as many as cores."""
    threads = runtime.cpu_cores()
    if len(pictures) < threads or threads == 1:
        return [tile_pixels(image, grid, side, dtype=dtype) for image, grid in zip(pictures, grids)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda image, grid: tile_pixels(image, grid, side, 1, dtype), pictures, grids))


def _edges(length: int, parts: int) -> list[int]:
    """Start of each part of a length, and its end; no part is empty."""
    parts = min(parts, length)
    return [length * i // parts for i in range(parts + 1)]


def _thumbnail(image: Image.Image, side: int, out: np.ndarray) -> None:
    fill_pixels(np.asarray(image.resize((side, side))), out)


def _resize_rows(image: Image.Image, rows: tuple[int, int], width: int) -> Image.Image:
    """First pass of a resize: rows first..last at the new width."""
    first, last = rows
    return image.crop((0, first, image.width, last)).resize((width, last - first))


def _fill_column(bands: list[Image.Image], left: int, part: tuple[int, int], tiles: np.ndarray) -> None:
    """Second pass of a resize, and normalisation, for a part of one column of the grid.

    Args:
        bands: of rows, after the first pass.
        left: first pixel column of the grid's column.
        part: first and last pixel column within it.
        tiles: of the grid's column, [rows, 3, S, S], filled in place.
    """
    first, last = part
    rows, _, side, _ = tiles.shape
    source = Image.new("RGB", (last - first, sum(band.height for band in bands)))
    top = 0
    for band in bands:
        source.paste(band.crop((left + first, 0, left + last, band.height)), (0, top))
        top += band.height
    levels = np.asarray(source.resize((last - first, rows * side)))
    for row in range(rows):
        fill_pixels(levels[row * side : (row + 1) * side], tiles[row, :, :, first:last])
