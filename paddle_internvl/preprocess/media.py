"""A picture or a clip of a message to pixel tiles, under control of how many.

In: a source (path, URL, data URL, bytes, PIL image, frames) and options. Out: per picture, float32 tiles [T, 3, S, S].
A clip's frames are pictures. Knows no prompt and no model.

What limits tiles, strongest first: the options of the picture itself, those of the call, the checkpoint's config. The
total budget is shared out over the pictures, so that each gets the most tiles that fit and at least one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paddle_internvl.preprocess.grid import TileGrid, choose_grid
from paddle_internvl.preprocess.image import open_image
from paddle_internvl.preprocess.tiling import all_pixels
from paddle_internvl.preprocess.video import frame_indices, open_clip

DETAIL_TILES = {"low": 6, "medium": 12, "high": 24}  # LMDeploy's meaning of OpenAI's field; 'auto': the config's
OPTION_ALIASES = {"min_dynamic_patch": "min_num", "max_dynamic_patch": "max_num", "num_frames": "num_segments"}
TILE_OPTIONS = ("min_num", "max_num", "use_thumbnail", "detail")
FRAME_OPTIONS = ("num_segments", "fps", "bound")


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


def open_media(kind: str, source, options: Mapping) -> tuple[list, dict]:
    """A medium's pictures as RGB PIL images (a clip has several), and the tile options it was given.

    Raises:
        ValueError: an unknown option, or a source that can't be decoded. FileNotFoundError, ImportError: see
        `open_image` and `open_clip`.
    """
    known = TILE_OPTIONS if kind == "image" else TILE_OPTIONS + FRAME_OPTIONS
    options = {OPTION_ALIASES.get(name, name): value for name, value in options.items() if value is not None}
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ValueError(f"{kind} option {unknown[0]!r} is not known; known: {', '.join(known)}")
    tiles = {name: options[name] for name in TILE_OPTIONS if name in options}
    detail = tiles.pop("detail", "auto")
    if detail != "auto":
        if detail not in DETAIL_TILES:
            raise ValueError(f"detail={detail!r} is not known; known: auto, {', '.join(DETAIL_TILES)}")
        tiles.setdefault("max_num", DETAIL_TILES[detail])
    if kind == "image":
        return [open_image(source)], tiles
    with open_clip(source) as clip:
        wanted = {name: options[name] for name in FRAME_OPTIONS if name in options}
        frames = clip.read(frame_indices(clip, **wanted).tolist())
    return frames, {"max_num": 1, **tiles}  # upstream shows a frame as one tile


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
