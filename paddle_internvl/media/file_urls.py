"""file:// URLs of untrusted input: files below one allowed folder, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddle_internvl.media.errors import MediaError

_NOT_ALLOWED = "the file is not one that this server may read"


def read_file_url(url: str, allowed: Path | None, limit: int) -> bytes:
    """The content of a regular file below the allowed folder.

    The error is the same whether another file exists or not.

    Args:
        url: a file:// URL.
        allowed: the folder, resolved; None: no file may be read.
        limit: most bytes.
    Raises:
        MediaError: no regular file below the folder, or larger than `limit`.
    """
    if allowed is None:
        raise MediaError("this server reads no files; send the data as a data: URL")
    try:
        parts = urlsplit(url)
        path = Path(unquote(parts.path, errors="strict")).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise MediaError(_NOT_ALLOWED) from error
    if parts.netloc.lower() not in ("", "localhost") or not path.is_relative_to(allowed):
        raise MediaError(_NOT_ALLOWED)
    try:
        with open(path, "rb", opener=_open_resolved) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MediaError(_NOT_ALLOWED)
            data = file.read(limit + 1)
    except OSError as error:
        raise MediaError(_NOT_ALLOWED) from error
    if len(data) > limit:
        raise MediaError(f"the file holds more than {limit} bytes", 413)
    return data


def _open_resolved(path: str, flags: int) -> int:
    """Open without following links (the path is resolved: a link here was put there since) or blocking on a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
