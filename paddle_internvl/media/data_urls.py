"""Data URLs: `data:<type>;base64,<data>` (RFC 2397, base64 only), encoded and decoded."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from paddle_internvl.media.errors import MediaError

_HEADER = re.compile(r"data:(?P<type>[^,;]{0,100})(?:;[^,;]{0,100}){0,8}?;base64,", re.IGNORECASE)
_MAX_HEADER = 1000  # characters
_MEDIA_TYPES = {
    "image": re.compile(r"image/.*", re.IGNORECASE),
    "video": re.compile(r"video/.*|image/(gif|webp|png|apng)", re.IGNORECASE),
}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # RFC 4648 §5
_SPACE = b" \t\r\n"  # line breaks of MIME encoders
_GENERIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")  # for every kind: the content decides


def encode_data_url(data: bytes, media_type: str) -> str:
    """The data URL of bytes.

    Args:
        data: the content.
        media_type: such as 'image/png'.
    """
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def decode_data_url(url: str, kind: str | None = None, limit: int | None = None) -> bytes:
    """The content of a data URL.

    Clients write base64 with line breaks, without padding, percent-encoded or in the URL-safe alphabet; every form is
    decoded. Other characters are an error.

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
    encoded = unquote_to_bytes(url[match.end() :]).translate(_URL_SAFE, delete=_SPACE)
    digits = encoded.rstrip(b"=")
    padding = len(encoded) - len(digits)
    if limit is not None and len(digits) * 3 // 4 > limit:
        raise MediaError(f"the data URL holds more than {limit} bytes", 413)
    if len(digits) % 4 == 1 or (padding and len(encoded) % 4) or padding > 2:
        raise MediaError("the data URL holds no valid base64: its length or padding is wrong; it may be truncated")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise MediaError("the data URL holds no valid base64") from error
