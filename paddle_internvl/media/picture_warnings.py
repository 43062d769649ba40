"""Warnings of pictures that a viewer shows otherwise than the model sees them: one a process and kind.

In: a picture as Pillow opened it. Out: a line in the log. The pixels stay those of upstream's `convert("RGB")`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from PIL import Image

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_lock = threading.Lock()
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # Pillow raises errors of any type at broken EXIF data, which turn nothing
        return False


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    alpha = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    return alpha.getchannel("A").getextrema()[0] < 255


_KINDS: dict[str, Callable[[Image.Image], bool]] = {
    "is turned by EXIF orientation, which is not applied, as upstream doesn't: turn it first "
    "(PIL.ImageOps.exif_transpose)": _is_turned,
    "is transparent; the model sees the colours under the transparent pixels, as upstream's does: paste it on a "
    "background first": _is_transparent,
    "has more than 8 bits a channel; levels above 255 are clipped, as upstream does: scale it to 8 bits first": (
        lambda image: image.mode[0] in "IF"
    ),
}


def warn_once(image: Image.Image, name: str) -> None:
    """Warn if the model sees a picture otherwise than a viewer shows it; of each kind once a process.

    Args:
        image: as opened, its pixels loaded, before `convert("RGB")`.
        name: of the picture in the warning.
    """
    for message, applies in _KINDS.items():
        if message in _warned or not applies(image):
            continue
        with _lock:
            is_first = message not in _warned
            _warned.add(message)
        if is_first:
            _log.warning("%s %s (further pictures of this kind are not reported)", name, message)
