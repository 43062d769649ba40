"""Tile limits and the tile budget of a request: the grid of each picture, and its tiles.

In: RGB PIL images with tile options. Out: a tile grid for each, and uint8 tiles [T, 3, S, S].

Options of a picture override those of the call, which override the checkpoint's config. A total budget is shared over
the pictures: each gets at least one tile, and the largest grids are made smaller first.
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
        side: S, the tile side in pixels.
        min_num, max_num: limits of the number of tiles, thumbnail not counted.
        use_thumbnail: append the whole picture to several tiles.
        total: most tiles of all pictures together, thumbnails counted; None: any number.
    """

    side: int
    min_num: int
    max_num: int
    use_thumbnail: bool
    total: int | None = None

    @classmethod
    def from_config(cls, config, **options) -> TileControl:
        """The limits of a checkpoint's config, overridden by the options of a call.

        Args:
            config: an `InternVLChatConfig`.
            options: fields of this class; None: the config's.
        """
        dynamic = config.dynamic_image_size
        limits = cls(
            side=config.tile_side,
            min_num=config.min_dynamic_patch if dynamic else 1,
            max_num=config.max_dynamic_patch if dynamic else 1,
            use_thumbnail=config.use_thumbnail,
        )
        return limits.override({name: value for name, value in options.items() if value is not None})

    def override(self, options: Mapping) -> TileControl:
        """These limits with some replaced. A max_num without a min_num lowers a larger min_num to itself."""
        limits = replace(self, **options)
        return limits if "min_num" in options else replace(limits, min_num=min(limits.min_num, limits.max_num))


def plan_grids(pictures: Sequence[tuple[object, Mapping]], control: TileControl) -> list[TileGrid]:
    """The tile grid of each picture, within its limits and the total budget.

    Args:
        pictures: (object with a `size` in pixels, such as a PIL image; tile options) of each.
        control: limits that the tile options override.
    Raises:
        ValueError: limits that leave no grid, or a total budget below one tile for each picture.
    """
    controls = [control.override(options) for _, options in pictures]
    sizes, total = [image.size for image, _ in pictures], control.total
    grids = [
        choose_grid(*size, c.min_num, c.max_num, c.side, c.use_thumbnail) for size, c in zip(sizes, controls)
    ]  # fmt: skip
    if total is None:
        return grids
    if total < len(sizes):
        raise ValueError(f"max_total_tiles={total} is less than one tile for each of {len(sizes)} pictures")
    while sum(grid.tiles for grid in grids) > total:
        largest = max(range(len(grids)), key=lambda i: (grids[i].tiles, i))
        c, limit = controls[largest], grids[largest].columns * grids[largest].rows - 1
        grids[largest] = choose_grid(*sizes[largest], min(c.min_num, limit), limit, c.side, c.use_thumbnail)
    return grids


def cut_tiles(pictures: Sequence[tuple[object, Mapping]], grids: Sequence[TileGrid], side: int) -> list[np.ndarray]:
    """Tiles uint8 [T, 3, S, S] of each picture by its grid; `pixels.normalized` makes float32 of them, which would take
    four times the memory while a request waits."""
    return all_pixels([image for image, _ in pictures], grids, side, np.uint8)
