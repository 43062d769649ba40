"""One line of log for each request: what it cost, never what it said.

In: what the layers note about a request. Out: a line. A picture is no more here than `<image 1024x768 213kB>`.
"""

from __future__ import annotations

import io
import logging
import re
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

log = logging.getLogger("paddle_internvl.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: object, most: int = 500) -> str:
    """`text` on one line that any terminal and encoding can show, at most so many characters."""
    text = _CONTROL.sub(" ", str(text)).strip()
    return text if len(text) <= most else text[: most - 3] + "..."


@dataclass
class Record:
    """What is known about a request.

    Attributes:
        id: what the client is told too. tokens_in, tokens_out: of prompt and answers. media: a word for each.
        error: code of what went wrong.
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


def new_record(wanted: str | None) -> Record:
    """A record under the id that the client wants, if that is a harmless one, or else under a new one."""
    return Record(wanted if wanted and _ID.fullmatch(wanted) else f"req-{uuid.uuid4().hex}")


def media_words(messages: Sequence[Mapping]) -> list[str]:
    """A word for each medium of messages that `MediaLoader` has loaded."""
    contents = [message["content"] for message in messages]
    return [word for content in contents if isinstance(content, list) for word in filter(None, map(_word, content))]


def _word(part: Mapping) -> str | None:
    if part["type"] == "image":
        return f"<image {_size(part['image'])} {-(-len(part['image']) // 1000)}kB>"
    if part["type"] == "video":
        frames = part["video"]
        return f"<video {len(frames)} frames {frames[0].width}x{frames[0].height}>"
    return None


def _size(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f"{image.width}x{image.height}"
    except (OSError, ValueError, Image.DecompressionBombError):
        return "?x?"  # whoever decodes it says what is wrong with it


def where(error: BaseException) -> str:
    """An error's type and the lines it passed, for the log: its message may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    cause = error.__cause__
    lines = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {lines or 'no line'}" + (f"; from {where(cause)}" if cause else "")
