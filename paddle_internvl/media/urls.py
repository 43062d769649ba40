"""The bytes behind a URL: data URLs, http and https. Whole, or an error; with a limit on size and time.

For pictures that the caller of this library names himself. It does not guard a server against what strangers name.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

_DATA = re.compile(r"data:[^,]*?(?P<base64>;base64)?,", re.IGNORECASE)
_TIMEOUT = 10.0  # seconds to connect, and between two pieces
_MAX_BYTES = 512 * 2**20


def is_url(source) -> bool:
    """Whether a source is a URL that `fetch` takes, rather than a path."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://", "data:"))


def short_name(url: str) -> str:
    """A URL for messages: data URLs are long."""
    return url if len(url) <= 100 else f"{url[:60]}… ({len(url)} characters)"


def fetch(url: str) -> bytes:
    """The content of a URL.

    Raises:
        ValueError: malformed, not found, too large or unreachable; names the URL.
    """
    if url.lower().startswith("data:"):
        return _decode_data_url(url)
    import requests

    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True) as response:
            response.raise_for_status()
            content = bytearray()
            for piece in response.iter_content(1 << 16):
                content += piece
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"{short_name(url)} holds more than {_MAX_BYTES} bytes")
    except requests.RequestException as error:
        raise ValueError(f"cannot fetch {short_name(url)}: {error}") from None
    return bytes(content)


def _decode_data_url(url: str) -> bytes:
    match = _DATA.match(url)
    if not match:
        raise ValueError(f"{short_name(url)} is no data URL: data:<type>;base64,<data>")
    data = unquote_to_bytes(url[match.end() :])
    if not match["base64"]:
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{short_name(url)} holds no valid base64: {error}") from None
