"""Download of a URL that the caller of this library names: http, https and data URLs, whole or an error.

It limits the size, the time between two packets and the time of all. URLs of untrusted input are `fetcher`'s.
"""

from __future__ import annotations

import queue
import threading
from urllib.parse import unquote

from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError

_TIMEOUT = 10.0  # seconds to connect, and between two packets
_TOTAL_TIMEOUT = 300.0  # seconds of a whole download
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
        ValueError: malformed, not found, too large, too slow or unreachable; names the URL.
    """
    if url.lower().startswith("data:"):
        try:
            return decode_data_url(unquote(url), limit=_MAX_BYTES)
        except MediaError as error:
            raise ValueError(f"{short_name(url)}: {error}") from None
    opened, outcome = [], queue.SimpleQueue()
    threading.Thread(target=_fetch, args=(url, opened, outcome), name="download", daemon=True).start()
    try:
        content = outcome.get(timeout=_TOTAL_TIMEOUT)
    except queue.Empty:
        for response in opened:  # its thread ends now, not with the server's patience; urllib3 2.3 has `shutdown`
            getattr(response.raw, "shutdown", response.close)()
        raise ValueError(f"cannot fetch {short_name(url)}: it takes longer than {_TOTAL_TIMEOUT:g} seconds") from None
    if isinstance(content, Exception):
        raise content
    return content


def _fetch(url: str, opened: list, outcome: queue.SimpleQueue) -> None:
    """Put the content of a URL, or the exception, into `outcome`; and the response, once there is one, into `opened`.

    Runs in a thread of its own, since `requests` has no limit of the whole time.
    """
    import requests

    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True) as response:
            opened.append(response)
            response.raise_for_status()
            content = bytearray()
            for piece in response.iter_content(1 << 16):
                content += piece
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"{short_name(url)} holds more than {_MAX_BYTES} bytes")
        outcome.put(bytes(content))
    except requests.RequestException as error:
        outcome.put(ValueError(f"cannot fetch {short_name(url)}: {error}"))
    except Exception as error:
        outcome.put(error)
