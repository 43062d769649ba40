"""Data URLs: the bytes that a `data:<type>;base64,<data>` URL holds (RFC 2397, base64 only)."""

from __future__ import annotations

import base64
import re

from paddle_internvl.media.errors import MediaError

_HEADER = re.compile(r"data:(?P<type>[^,;]{0,100})(?:;[^,;]{0,100}){0,8}?;base64,", re.IGNORECASE)
_MAX_HEADER = 1000  # characters
_MEDIA_TYPES = {
    "image": re.compile(r"image/.*", re.IGNORECASE),
    "video": re.compile(r"video/.*|image/(gif|webp|png|apng)", re.IGNORECASE),
}
_GENERIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")  # for every kind: the content decides


def decode_data_url(url: str, kind: str | None = None, limit: int | None = None) -> bytes:
    """The content of a data URL, decoded by strict base64.

    Args:
        url: the data URL.
        kind: 'image' or 'video', which the URL's media type must fit; None: any.
        limit: most bytes; None: any number.
    Raises:
        MediaError: malformed, of another media type, or larger than `limit` (checked before the data is decoded).
    """
    match = _HEADER.match(url[:_MAX_HEADER])
    if not match:
        raise MediaError("not a data URL of the form data:<type>;base64,<data>")
    media_type = match["type"].strip()
    if kind and media_type.lower() not in _GENERIC_TYPES and not _MEDIA_TYPES[kind].fullmatch(media_type):
        raise MediaError(f"a data URL of this type is no {kind}")
    too_large = MediaError(f"the data URL holds more than {limit} bytes", 413)
    length = len(url) - match.end()
    if limit is not None and length // 4 * 3 - 2 > limit:
        raise too_large
    if length % 4 or url.endswith("==="):  # Python accepts any number of padding characters
        raise MediaError("the data URL holds no valid base64")
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except ValueError as error:
        raise MediaError("the data URL holds no valid base64") from error
    if limit is not None and len(data) > limit:
        raise too_large
    return data
