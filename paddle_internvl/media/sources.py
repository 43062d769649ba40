"""The bytes of a medium that a request holds itself (data URLs) or names below the folder that is allowed (file URLs).

In: a URL and a cap. Out: bytes, or a `MediaError`. Opens no connection, and no path but that of a file:// URL.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddle_internvl.media.errors import MediaError

_HEADER = re.compile(r"data:(?P<type>[^,;]{0,100})(?:;[^,;]{0,100}){0,8}?;base64,", re.IGNORECASE)
_LONGEST_HEADER = 1000
# Types a field takes; a missing one or one that says nothing is taken too, the content decides.
_TYPES = {
    "image": re.compile(r"image/.*", re.IGNORECASE),
    "video": re.compile(r"video/.*|image/(gif|webp|png|apng)", re.IGNORECASE),
}
_SAYS_NOTHING = ("", "application/octet-stream", "binary/octet-stream")
_OUTSIDE = "the file is not one that this server may read"


def decode_data_url(url: str, kind: str, most: int) -> bytes:
    """The content of a data URL, which must be base64 to the letter.

    Args:
        kind: 'image' or 'video'. most: bytes.
    Raises:
        MediaError: malformed, of another type, or larger than `most` (known before it is decoded).
    """
    match = _HEADER.match(url[:_LONGEST_HEADER])
    if not match:
        raise MediaError("not a data URL of the form data:<type>;base64,<data>")
    given = match["type"].strip()
    if given.lower() not in _SAYS_NOTHING and not _TYPES[kind].fullmatch(given):
        raise MediaError(f"a data URL of this type is no {kind}")
    length = len(url) - match.end()
    if length // 4 * 3 - 2 > most:
        raise MediaError(f"the data URL holds more than {most} bytes", 413)
    if length % 4 or url.endswith("==="):  # Python takes any number of them
        raise MediaError("the data URL holds no valid base64")
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except ValueError as error:
        raise MediaError("the data URL holds no valid base64") from error
    if len(data) > most:
        raise MediaError(f"the data URL holds more than {most} bytes", 413)
    return data


def read_file_url(url: str, allowed: Path | None, most: int) -> bytes:
    """The content of a regular file below a folder. Whether another file exists can't be told from the error.

    Args:
        allowed: the folder, resolved; None: there is none. most: bytes.
    Raises:
        MediaError: not such a file, or larger than `most`.
    """
    if allowed is None:
        raise MediaError("this server reads no files; send the data as a data: URL")
    try:
        parts = urlsplit(url)
        path = Path(unquote(parts.path, errors="strict")).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise MediaError(_OUTSIDE) from error
    if parts.netloc.lower() not in ("", "localhost") or not path.is_relative_to(allowed):
        raise MediaError(_OUTSIDE)
    try:
        with open(path, "rb", opener=_open_resolved) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MediaError(_OUTSIDE)
            data = file.read(most + 1)
    except OSError as error:
        raise MediaError(_OUTSIDE) from error
    if len(data) > most:
        raise MediaError(f"the file holds more than {most} bytes", 413)
    return data


def _open_resolved(path: str, flags: int) -> int:
    """Links are resolved already: one that is met here has been put there since. A pipe must not hold the thread."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
