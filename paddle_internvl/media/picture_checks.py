"""Checks of an untrusted picture by its header, before a pixel is decoded.

In: the bytes that `images.open_image` will decode. Out: the number of pixels, or a `MediaError`.
"""

from __future__ import annotations

import io

from PIL import Image

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MAX_READS = 400_000  # Pillow reads headers in Python, a few bytes at a time; an ordinary file needs hundreds
_MAX_SCANS = 64  # of a progressive JPEG, each of which is decoded over all pixels; encoders write about ten
_SCAN_MARKER = b"\xff\xda"


class _ReadLimit(io.BytesIO):
    """A file that raises `MediaError` at a header made of very many pieces."""

    reads = 0

    def read(self, *size):
        self.reads += 1
        if self.reads > _MAX_READS:
            raise MediaError("the picture is made of too many pieces")
        return super().read(*size)


def check_picture(data: bytes, limits: MediaLimits) -> int:
    """The number of pixels of a picture that may be decoded.

    Args:
        data: of the picture's file.
        limits: that it must keep.

    Raises:
        MediaError: not a JPEG, PNG, WebP, GIF or BMP, with a broken header, or above a limit.
    """
    try:
        with Image.open(_ReadLimit(data), formats=_FORMATS) as image:
            form, size, frames = image.format, image.size, getattr(image, "n_frames", 1)
        with Image.open(_ReadLimit(data)) as image:  # as it will be opened: bytes can be a picture in two formats
            same = (image.format, image.size) == (form, size)
            image.verify()  # walks all chunks of a PNG, finds truncated ones
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"the picture is too large; {limits.max_image_pixels} pixels are taken", 413) from error
    except Exception as error:  # Pillow's readers raise errors of any type at garbage
        raise MediaError("the picture is broken, or is no JPEG, PNG, WebP, GIF or BMP") from error
    if not same:
        raise MediaError("the picture's format is ambiguous")
    if frames > limits.max_image_frames:
        raise MediaError(f"the picture has {frames} frames; at most {limits.max_image_frames} are taken")
    if data.startswith(b"\xff\xd8") and data.count(_SCAN_MARKER) > _MAX_SCANS:
        raise MediaError(f"the picture has more than {_MAX_SCANS} scans")
    return check_size("the picture", *size, limits)


def check_size(name: str, width: int, height: int, limits: MediaLimits) -> int:
    """The number of pixels of a picture or frame of a size that may be decoded.

    Args:
        name: of the picture in error messages.
        width, height: pixels.
        limits: that the size must keep.
    Raises:
        MediaError: a size above a limit; names both numbers.
    """
    short, long = sorted((width, height))
    if short < 1:
        raise MediaError(f"{name} is {width}x{height}: it has no pixels")
    if long > limits.max_image_side:
        raise MediaError(f"{name} is {width}x{height}; a side may have {limits.max_image_side} pixels", 413)
    if width * height > limits.max_image_pixels:
        raise MediaError(f"{name} is {width}x{height}; {limits.max_image_pixels} pixels are taken", 413)
    if long > limits.max_aspect * short:
        raise MediaError(f"{name} is {width}x{height}; sides may differ by a factor of {limits.max_aspect}")
    return width * height
