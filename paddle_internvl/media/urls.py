"""Download of a URL that the caller of this library names: http, https and data URLs, whole or an error.

It limits the size, the time to connect and the time between two packets. URLs of untrusted input are `fetcher`'s.
"""

from __future__ import annotations

from urllib.parse import unquote

from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError

_TIMEOUT = 10.0  # seconds
_MAX_BYTES = 512 * 2**20


def is_url(source) -> bool:
    """Whether a source is a URL that `download` takes, rather than a path."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://", "data:"))


def short_name(url: str) -> str:
    """A URL for error messages, shortened: data URLs are long."""
    return url if len(url) <= 100 else f"{url[:60]}… ({len(url)} characters)"


def download(url: str) -> bytes:
    """The content of a URL.

    Args:
        url: http://, https:// or data:, percent-encoded or not.
    Raises:
        ValueError: malformed, not found, too large or unreachable; names the URL.
    """
    if url.lower().startswith("data:"):
        try:
            return decode_data_url(unquote(url), limit=_MAX_BYTES)
        except MediaError as error:
            raise ValueError(f"{short_name(url)}: {error}") from None
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
