"""Tile grid of a picture: integers only, shared by cropping and token counts.

In: width, height and tile limits. Out: columns, rows and the number of tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

TILE_SIDE = 448


@dataclass(frozen=True)
class TileGrid:
    """A picture's tiles.

    Attributes:
        columns, rows: of the crops.
        thumbnail: whether the whole picture is one more tile.
    """

    columns: int
    rows: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """T, the number of tiles, thumbnail counted."""
        return self.columns * self.rows + self.thumbnail


@lru_cache(maxsize=256)
def grid_candidates(min_num: int, max_num: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) with min_num <= columns * rows <= max_num, by area, in upstream's order.

    Raises:
        ValueError: not 1 <= min_num <= max_num.
    Source: upstream `internvl/train/dataset.py`, `dynamic_preprocess`.
    """
    if not 1 <= min_num <= max_num:
        raise ValueError(f"tile limits min_num={min_num}, max_num={max_num}: 1 <= min_num <= max_num is needed")
    # Upstream sorts a set by area. Among grids of one area the order is the set's iteration order, which decides ties
    # where min_num > 1. It depends on both limits through the set's hash table (up to six orders of one area), so the
    # same set is built here, with the same insertion order; `sorted` is stable.
    pairs = {
        (i, j)
        for n in range(min_num, max_num + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_num <= i * j <= max_num
    }
    return tuple(sorted(pairs, key=lambda pair: pair[0] * pair[1]))


def find_closest_aspect_ratio(aspect_ratio, target_ratios, width, height, image_size) -> tuple[int, int]:
    """The grid whose aspect ratio is nearest to the picture's; on a tie the later one if the picture is large enough.

    Args:
        aspect_ratio: width / height.
        target_ratios: (columns, rows) in order.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        image_size: S, the tile side in pixels.
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
    """The tile grid of a picture; a single tile has no thumbnail.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        min_num: least number of tiles.
        max_num: largest number of tiles.
        image_size: S, the tile side in pixels.
        use_thumbnail: append the whole picture to several tiles.
    Returns:
        The grid.
    Raises:
        ValueError: a picture without pixels, or limits that leave no grid.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels has no tiles")
    candidates = grid_candidates(min_num, max_num)
    columns, rows = find_closest_aspect_ratio(width / height, candidates, width, height, image_size)
    return TileGrid(columns, rows, thumbnail=use_thumbnail and columns * rows > 1)
