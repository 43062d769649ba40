"""Tile limits: how many tiles each picture of a request is cut into, and the cutting.

In: RGB PIL images with tile options of their own. Out: a tile grid each, and float32 tiles [T, 3, S, S].

Tiles are limited, strongest first, by the options of the picture itself, those of the call, the checkpoint's config. A
total budget is shared over the pictures, so that each gets the most tiles that fit and at least one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paddle_internvl.preprocess.grid import TileGrid, choose_grid
from paddle_internvl.preprocess.tiling import all_pixels


@dataclass(frozen=True)
class TileControl:
    """Limits of a picture's tiles.

    Args:
        side: S, pixels. min_num, max_num: of crops, the thumbnail not counted. use_thumbnail: append the whole
            picture to several crops. total: the most tiles of all pictures together, thumbnails counted; None: any.
    """

    side: int
    min_num: int
    max_num: int
    use_thumbnail: bool
    total: int | None = None

    @classmethod
    def of(cls, config, **given) -> TileControl:
        """What a checkpoint's config says, with what a call says on top (None: nothing)."""
        dynamic = config.dynamic_image_size
        control = cls(
            side=config.tile_side,
            min_num=config.min_dynamic_patch if dynamic else 1,
            max_num=config.max_dynamic_patch if dynamic else 1,
            use_thumbnail=config.use_thumbnail,
        )
        return replace(control, **{name: value for name, value in given.items() if value is not None})


def plan_grids(pictures: Sequence[tuple[object, Mapping]], control: TileControl) -> list[TileGrid]:
    """The tile grid of each of (RGB PIL image, its own tile options); under a budget the largest is made smaller until
    all fit together.

    Raises:
        ValueError: limits that leave no grid, or a total budget below one tile per picture.
    """
    controls = [replace(control, **options) for _, options in pictures]
    sizes, total = [image.size for image, _ in pictures], control.total

    def grid(size: tuple[int, int], c: TileControl, limit: int) -> TileGrid:
        return choose_grid(*size, min(c.min_num, limit), limit, c.side, c.use_thumbnail)

    limits = [own.max_num for own in controls]
    grids = [grid(*each) for each in zip(sizes, controls, limits)]
    if total is None:
        return grids
    if total < len(sizes):
        raise ValueError(f"max_total_tiles={total} is less than one tile for each of {len(sizes)} pictures")
    while sum(g.tiles for g in grids) > total:
        largest = max(range(len(grids)), key=lambda i: (grids[i].tiles, i))
        limits[largest] = grids[largest].columns * grids[largest].rows - 1
        grids[largest] = grid(sizes[largest], controls[largest], limits[largest])
    return grids


def cut_tiles(pictures: Sequence[tuple[object, Mapping]], grids: Sequence[TileGrid], side: int) -> list[np.ndarray]:
    """Tiles float32 [T, 3, S, S] of each picture by its grid."""
    return all_pixels([image for image, _ in pictures], grids, side)
