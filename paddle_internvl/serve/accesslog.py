"""Access log: one line for each request with its cost and none of its content.

In: the `Record` that the server's layers fill in. Out: a line. A picture is logged as `<image 1024x768 213kB>`.
"""

from __future__ import annotations

import io
import logging
import re
import traceback
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from PIL import Image

from paddle_internvl.prompt.messages import Media

log = logging.getLogger("paddle_internvl.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: object, limit: int = 500) -> str:
    """`text` on one line without control characters, cut to at most `limit` characters."""
    text = _CONTROL.sub(" ", str(text)).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass
class Record:
    """The log's facts about a request.

    Attributes:
        id: request id, which the response header `x-request-id` holds too.
        tokens_in: tokens of the prompt.
        tokens_out: tokens of the answers.
        media: a description of each picture and clip.
        error: code of the error.
    """

    id: str
    tokens_in: int = 0
    tokens_out: int = 0
    media: list[str] = field(default_factory=list)
    error: str | None = None

    def line(self, method: str, route: str, status: int, seconds: float) -> str:
        """The access line."""
        words = [f"id={self.id}", one_line(method, 16), route, str(status), f"{seconds:.3f}s"]
        if self.tokens_in:
            words.append(f"in={self.tokens_in} out={self.tokens_out}")
        if self.error:
            words.append(f"error={one_line(self.error, 40)}")
        return " ".join(words + self.media)


def new_record(requested_id: str | None) -> Record:
    """A record under the client's request id, if that is of harmless characters, else under a new one."""
    is_valid = requested_id and _ID.fullmatch(requested_id)
    return Record(requested_id if is_valid else f"req-{uuid.uuid4().hex}")


def describe_media(media: Iterable[Media]) -> list[str]:
    """A description of each medium that `MediaLoader` has loaded."""
    return [_describe(medium) for medium in media]


def _describe(medium: Media) -> str:
    if medium.kind == "image":
        return f"<image {_size(medium.source)} {-(-len(medium.source) // 1000)}kB>"
    first, *_ = frames = medium.source
    return f"<video {len(frames)} frames {first.width}x{first.height}>"


def _size(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f"{image.width}x{image.height}"
    except (OSError, ValueError, Image.DecompressionBombError):
        return "?x?"  # decoding it will raise the error


def error_trace(error: BaseException) -> str:
    """An error's type and traceback lines for the log, without its message, which may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    cause = error.__cause__
    lines = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {lines or 'no line'}" + (f"; from {error_trace(cause)}" if cause else "")
