"""Which tile grid a picture gets, and what it costs: pure integers. Cropping and token counts both ask here.

In: width, height and tile limits. Out: (columns, rows), tile and token counts. Knows no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

TILE_SIDE = 448


@dataclass(frozen=True)
class TileGrid:
    """A picture's tiles: columns x rows crops, and a thumbnail of the whole when there is more than one crop."""

    columns: int
    rows: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """T of this picture, the thumbnail counted."""
        return self.columns * self.rows + self.thumbnail


@lru_cache(maxsize=256)
def grid_candidates(min_num: int, max_num: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) with min_num <= columns * rows <= max_num, by area.

    Raises:
        ValueError: the limits leave no grid.
    """
    if not 1 <= min_num <= max_num:
        raise ValueError(f"tile limits min_num={min_num}, max_num={max_num}: 1 <= min_num <= max_num is needed")
    # A set of the pairs in this very order, then a stable sort: among grids of one area upstream's order is that of
    # a CPython set of int pairs, and it decides ties when min_num > 1.
    pairs = {
        (i, j)
        for n in range(min_num, max_num + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_num <= i * j <= max_num
    }
    return tuple(sorted(pairs, key=lambda pair: pair[0] * pair[1]))


def find_closest_aspect_ratio(aspect_ratio, target_ratios, width, height, image_size) -> tuple[int, int]:
    """The grid whose shape is nearest to the picture's; on a tie the later one if the picture has the pixels for it.

    Args:
        aspect_ratio: width / height. target_ratios: (columns, rows) in order. width, height, image_size: pixels.
    Returns:
        (columns, rows).
    Source: upstream `internvl/train/dataset.py`, `find_closest_aspect_ratio`.
    """
    best_difference, best = float("inf"), (1, 1)
    area = width * height
    for columns, rows in target_ratios:
        difference = abs(aspect_ratio - columns / rows)
        if difference < best_difference:
            best_difference, best = difference, (columns, rows)
        elif difference == best_difference and area > 0.5 * image_size * image_size * columns * rows:
            best = (columns, rows)
    return best


def choose_grid(
    width: int,
    height: int,
    min_num: int = 1,
    max_num: int = 12,
    image_size: int = TILE_SIDE,
    use_thumbnail: bool = True,
) -> TileGrid:
    """The grid of a picture; a single tile never gets a thumbnail.

    Args:
        width, height: of the picture, pixels. min_num, max_num: limits of columns * rows. image_size: S, pixels.
        use_thumbnail: append the whole picture to several crops.
    Returns:
        Columns and rows, and whether there is a thumbnail.
    Raises:
        ValueError: a picture without pixels, or limits that leave no grid.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels has no tiles")
    candidates = grid_candidates(min_num, max_num)
    columns, rows = find_closest_aspect_ratio(width / height, candidates, width, height, image_size)
    return TileGrid(columns, rows, thumbnail=use_thumbnail and columns * rows > 1)
