"""Pictures to normalised tiles on several cores, bit for bit what `tiles.cut` and `pixels.normalize_all` make.

In: RGB PIL images and their grids. Out: float32 tiles. Knows no files and no model.

Pillow resizes in two passes, along rows and then along columns, and rounds to bytes between them. Rows are independent
of each other in the first pass and columns in the second, so each pass is shared out by itself; a band resized at once
by Pillow's `box` would begin at a rounded place and differ. Pillow and numpy let go of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from paddle_internvl import runtime
from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.pixels import normalize_all, normalize_into
from paddle_internvl.preprocess.tiles import cut

_SHARED_PIXELS = 1 << 18  # of a picture and its tiles, below which threads cost more than they save
_BANDS = 2  # of rows, for each thread
_SLENDER = 100  # times as high as wide: beyond it Pillow resizes columns first


def tile_pixels(image: Image.Image, grid: TileGrid, side: int, threads: int | None = None) -> np.ndarray:
    """The tiles of one picture.

    Args:
        image: RGB. grid: how it is cut. side: S, pixels. threads: that share the work; None: one for each core.
    Returns:
        float32 [T, 3, S, S], row by row, the thumbnail last.
    """
    threads = threads or runtime.cpu_cores()
    pixels = image.width * image.height + grid.tiles * side * side
    if threads == 1 or pixels < _SHARED_PIXELS or image.height > _SLENDER * image.width:
        return normalize_all(cut(image, grid, side), side)
    out = np.empty((grid.tiles, 3, side, side), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_thumbnail, image, side, out[-1])] if grid.thumbnail else []
        edges = _edges(image.height, _BANDS * threads)
        bands = list(pool.map(lambda rows: _widened(image, rows, side * grid.columns), zip(edges, edges[1:])))
        parts = _edges(side, -(-threads // grid.columns))
        for column in range(grid.columns):
            tiles = out[column : grid.columns * grid.rows : grid.columns]
            for part in zip(parts, parts[1:]):
                jobs.append(pool.submit(_fill_column, bands, column * side, part, tiles))
        for job in jobs:
            job.result()
    return out


def all_pixels(pictures: Sequence[Image.Image], grids: Sequence[TileGrid], side: int) -> list[np.ndarray]:
    """`tile_pixels` of each picture; where there are as many as cores, a picture is one thread's."""
    threads = runtime.cpu_cores()
    if len(pictures) < threads or threads == 1:
        return [tile_pixels(image, grid, side) for image, grid in zip(pictures, grids)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda image, grid: tile_pixels(image, grid, side, threads=1), pictures, grids))


def _edges(length: int, parts: int) -> list[int]:
    """Where the parts of a length begin, and its end; each part has something in it."""
    parts = min(parts, length)
    return [length * i // parts for i in range(parts + 1)]


def _thumbnail(image: Image.Image, side: int, out: np.ndarray) -> None:
    normalize_into(np.asarray(image.resize((side, side))), out)


def _widened(image: Image.Image, rows: tuple[int, int], width: int) -> Image.Image:
    """Rows first..last after the first pass of a resize to `width`."""
    first, last = rows
    return image.crop((0, first, image.width, last)).resize((width, last - first))


def _fill_column(bands: list[Image.Image], left: int, part: tuple[int, int], tiles: np.ndarray) -> None:
    """Columns part[0]..part[1] of the tiles [rows, 3, S, S] of one column of the grid, which begins at `left`: the
    second pass, and the normalisation."""
    first, last = part
    rows, _, side, _ = tiles.shape
    source = Image.new("RGB", (last - first, sum(band.height for band in bands)))
    top = 0
    for band in bands:
        source.paste(band.crop((left + first, 0, left + last, band.height)), (0, top))
        top += band.height
    levels = np.asarray(source.resize((last - first, rows * side)))
    for row in range(rows):
        normalize_into(levels[row * side : (row + 1) * side], tiles[row, :, :, first:last])
