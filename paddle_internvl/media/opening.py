"""One medium of a message opened: RGB PIL images and tile options, from a source that the caller names.

For media of untrusted input see `loader`.
"""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from paddle_internvl.media.images import open_image
from paddle_internvl.media.options import parse_options
from paddle_internvl.media.video import open_source
from paddle_internvl.preprocess.frames import frame_indices


def open_media(kind: str, source, options: Mapping) -> tuple[list[Image.Image], dict]:
    """Open a picture or the sampled frames of a clip.

    Args:
        kind: 'image' or 'video'.
        source: see `open_image` and `open_source`.
        options: tile and frame options, see `media.options`.
    Returns:
        RGB PIL images, several for a clip; and the tile options.
    Raises:
        ValueError: an invalid option, or a source that can't be decoded.
        FileNotFoundError, TypeError, ImportError: see `open_image` and `open_source`.
    """
    parsed = parse_options(kind, options)
    if kind == "image":
        return [open_image(source)], parsed.tiles
    with open_source(source) as clip:
        frames = clip.read(frame_indices(clip, **parsed.frames).tolist())
    return frames, parsed.tiles
