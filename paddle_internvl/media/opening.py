"""A picture or a clip of a message, opened: RGB PIL images, and the tile options it was given.

In: a source (path, URL, data URL, bytes, PIL image, frames) and options. Out: PIL images. A clip's frames are pictures.
"""

from __future__ import annotations

from collections.abc import Mapping

from paddle_internvl.media.images import open_image
from paddle_internvl.media.video import open_clip
from paddle_internvl.preprocess.frames import frame_indices

DETAIL_TILES = {"low": 6, "medium": 12, "high": 24}  # LMDeploy's meaning of OpenAI's field; 'auto': the config's
OPTION_ALIASES = {"min_dynamic_patch": "min_num", "max_dynamic_patch": "max_num", "num_frames": "num_segments"}
TILE_OPTIONS = ("min_num", "max_num", "use_thumbnail", "detail")
FRAME_OPTIONS = ("num_segments", "fps", "bound")


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
