"""What decoding a stranger's picture would cost, from its header.

In: bytes of a file. Out: its pixels, or a `MediaError`. No pixel is decoded here. What is measured is what
`preprocess.image.open_image` will find in the same bytes.
"""

from __future__ import annotations

import io

from PIL import Image

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MOST_READS = 400_000  # Pillow reads headers in Python, a few bytes at a time; an honest file needs hundreds
_MOST_SCANS = 64  # of a progressive JPEG, each of which is decoded over all pixels; encoders write about ten
_SCAN = b"\xff\xda"


class _Measured(io.BytesIO):
    """A file that ends the reading of a header made of very many pieces."""

    reads = 0

    def read(self, *size):
        self.reads += 1
        if self.reads > _MOST_READS:
            raise MediaError("the picture is made of too many pieces")
        return super().read(*size)


def pixels_of(data: bytes, limits: MediaLimits) -> int:
    """Pixels of a picture that may be decoded.

    Raises:
        MediaError: not a JPEG, PNG, WebP, GIF or BMP, broken as far as its header tells, or beyond a limit.
    """
    try:
        with Image.open(_Measured(data), formats=_FORMATS) as image:
            name, size, frames = image.format, image.size, getattr(image, "n_frames", 1)
        with Image.open(_Measured(data)) as image:  # as it will be opened: bytes can be a picture in two formats
            same = (image.format, image.size) == (name, size)
            image.verify()  # walks all chunks of a PNG, finds truncated ones
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"the picture is too large; {limits.max_image_pixels} pixels are taken", 413) from error
    except Exception as error:  # Pillow's readers raise what they like about garbage
        raise MediaError("the picture is broken, or is no JPEG, PNG, WebP, GIF or BMP") from error
    if not same:
        raise MediaError("the picture's format is ambiguous")
    if frames > limits.max_image_frames:
        raise MediaError(f"the picture has {frames} frames; at most {limits.max_image_frames} are taken")
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > _MOST_SCANS:
        raise MediaError(f"the picture has more than {_MOST_SCANS} scans")
    return check_size("the picture", *size, limits)


def check_size(what: str, width: int, height: int, limits: MediaLimits) -> int:
    """Pixels of a picture of a size that may be decoded.

    Raises:
        MediaError: it may not; names both numbers.
    """
    short, long = sorted((width, height))
    if short < 1:
        raise MediaError(f"{what} is {width}x{height}: it has no pixels")
    if long > limits.max_image_side:
        raise MediaError(f"{what} is {width}x{height}; a side may have {limits.max_image_side} pixels", 413)
    if width * height > limits.max_image_pixels:
        raise MediaError(f"{what} is {width}x{height}; {limits.max_image_pixels} pixels are taken", 413)
    if long > limits.max_aspect * short:
        raise MediaError(f"{what} is {width}x{height}; sides may differ by a factor of {limits.max_aspect}")
    return width * height
