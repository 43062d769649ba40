"""A picture or clip of a conversation, from what people type: paths, quoted, dragged or with blanks, and URLs.

In: the text behind /image or /video. Out: an opened `Medium`, and its part of a message for a model, server or file.
"""

from __future__ import annotations

import io
import mimetypes
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.media.urls import is_url

if TYPE_CHECKING:
    from PIL.Image import Image

_STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")  # endings of pictures that are no clips
_CLIPS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_ENDINGS = {"image": (*_STILL, ".webp", ".gif"), "video": _CLIPS}


@dataclass(frozen=True)
class Medium:
    """A picture or clip.

    Attributes:
        kind: 'image' or 'video'.
        source: path or URL.
        images: RGB PIL images: one, or the frames of a clip; empty: not opened.
        frames: frames that are taken from a clip.
    """

    kind: str
    source: str
    images: tuple[Image, ...]
    frames: int

    @property
    def size(self) -> str:
        """Size in pixels, of a clip its number of frames too; '' of one that is not opened."""
        if not self.images:
            return ""
        size = "{}x{}".format(*self.images[0].size)
        return size if self.kind == "image" else f"{len(self.images)} frames of {size}"

    def for_model(self) -> dict:
        """The part of a message for a model in this process."""
        if self.kind == "image":
            return {"type": "image", "image": self.images[0]}
        return {"type": "video", "video": list(self.images)}

    def for_server(self) -> dict:
        """The part of a message for a server, with the bytes of the file.

        Raises:
            ValueError: a folder of pictures, which has no bytes.
        """
        if self.kind == "image":
            stream = io.BytesIO()
            self.images[0].save(stream, "PNG")
            return {"type": "image_url", "image_url": {"url": encode_data_url(stream.getvalue(), "image/png")}}
        if is_url(self.source):
            return self.for_file()
        if Path(self.source).is_dir():
            raise ValueError(f"{self.source} is a folder; a server takes a clip as one file")
        kind = mimetypes.guess_type(self.source)[0] or "video/mp4"
        url = encode_data_url(Path(self.source).read_bytes(), kind)
        return {"type": "video_url", "video_url": {"url": url, "num_segments": self.frames}}

    def for_file(self) -> dict:
        """The part of a message in a saved conversation: the absolute path, or the URL."""
        url = self.source if is_url(self.source) else str(Path(self.source).absolute())
        if self.kind == "image":
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "video_url", "video_url": {"url": url, "num_segments": self.frames}}


def open_medium(kind: str, source: str, frames: int, decode: bool = True) -> Medium:
    """A picture or clip, opened.

    Args:
        kind: 'image' or 'video'.
        source: path or URL.
        frames: frames that are taken from a clip.
        decode: False leaves a clip unopened, for a server that decodes it.
    Raises:
        ValueError: the source is of the other kind, or can't be decoded.
        FileNotFoundError: there is no such file.
    """
    from paddle_internvl.media.opening import open_media

    if kind == "image" and Path(source).is_dir():
        raise ValueError(f"{source} is a folder, not a picture; name a file in it, or take the folder as a clip")
    if kind == "video" and Path(source).suffix.lower() in _STILL:
        raise ValueError(f"{source} is a picture, not a clip; add it as an image")
    if kind == "video" and not decode:
        if not is_url(source) and not Path(source).exists():
            raise FileNotFoundError(f"no such video: {source}")
        return Medium(kind, source, (), frames)
    images, _ = open_media(kind, source, {"num_segments": frames} if kind == "video" else {})
    return Medium(kind, source, tuple(images), frames)


def medium_of_part(part: dict, frames: int, decode: bool = True) -> Medium:
    """The medium of a saved message's part, opened.

    Raises:
        ValueError: a part of another form than `Medium.for_file` writes.
    """
    kind = str(part.get("type")).removesuffix("_url")
    field = part.get(f"{kind}_url")
    if kind not in _ENDINGS or not isinstance(field, dict) or not isinstance(field.get("url"), str):
        raise ValueError(f"a saved message has no picture of the form {part!r:.60}")
    return open_medium(kind, field["url"], int(field.get("num_segments", frames)), decode)


def sources(text: str) -> list[str]:
    """Paths and URLs in what was typed, pasted or dragged into a terminal.

    A path may hold blanks, begin with ~, stand in quotes or with backslashes, or be a file:// URL; several quoted ones
    may follow each other. What is no file stays as it is, for the error that names it.
    """
    text = text.strip()
    if not text or is_url(text) or Path(text).expanduser().exists():
        return [_plain(text)] if text else []
    try:
        words = shlex.split(text)
    except ValueError:  # an apostrophe that is no quote
        words = [text]
    plain = [_plain(word) for word in words]
    return plain if all(is_url(word) or Path(word).exists() for word in plain) else [_plain(text.strip("'\""))]


def dragged(text: str) -> list[tuple[str, str]]:
    """(kind, source) of every file, where a whole message is paths of pictures and clips; [] for other messages."""
    if not text.startswith(("/", "~", "'", '"', "file://")) or "\n" in text:
        return []
    found = [(kind, source) for source in sources(text) for kind in _ENDINGS if source.lower().endswith(_ENDINGS[kind])]
    return found if found and all(Path(source).is_file() for _, source in found) else []


def _plain(word: str) -> str:
    """The path of a file:// URL, or a path with its ~ expanded; other URLs as they are."""
    if word.startswith("file://"):
        return unquote(urlsplit(word).path)
    return word if is_url(word) else str(Path(word).expanduser())
