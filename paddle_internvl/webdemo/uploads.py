"""Untrusted uploads to attachments: checked before they are decoded, clips in a sandbox process.

In: the path of an uploaded file. Out: an `Attachment`, or a `MediaError` that names the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio
from PIL import Image

from paddle_internvl.media.clip_decoder import ClipDecoder
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.images import open_image
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.picture_checks import check_picture
from paddle_internvl.webdemo.pictures import data_url, small

_MIB = 2**20
MAX_FRAMES = 32
LIMITS = MediaLimits(
    remote=False,
    max_images=8,
    max_image_bytes=20 * _MIB,
    max_video_bytes=64 * _MIB,
    max_image_pixels=32_000_000,
    max_total_pixels=64 * _MIB,
    max_frames=MAX_FRAMES,
)


@dataclass(frozen=True)
class Attachment:
    """A picture or clip of a question.

    Attributes:
        kind: 'image' or 'video'.
        name: of the file.
        source: bytes of the picture's file, or the frames of the clip.
        sizes: of the pictures, pixels.
        previews: thumbnails of the pictures.
        file: bytes of a clip's file; None: they are not kept.
    """

    kind: str
    name: str
    source: bytes | list[Image.Image] = field(repr=False)
    sizes: tuple[tuple[int, int], ...]
    previews: tuple[Image.Image, ...] = field(repr=False)
    file: bytes | None = field(default=None, repr=False)

    @cached_property
    def urls(self) -> tuple[str, ...]:
        """The previews as data URLs."""
        return tuple(map(data_url, self.previews))

    @property
    def pixels(self) -> int:
        """Pixels of all its pictures."""
        return sum(width * height for width, height in self.sizes)

    def part(self, source=None) -> dict:
        """The message part of the attachment.

        Args:
            source: of the part; None: the attachment's own.
        """
        return {"type": self.kind, self.kind: self.source if source is None else source}


class Receiver:
    """Makes attachments of the uploads of all visitors.

    Args:
        side: S, the tile side in pixels. Frames are kept at that size, because a frame is one tile.
        limits: of pictures and clips.
        keep_files: keep the bytes of clips' files, for a server that decodes them.
    """

    def __init__(self, side: int, limits: MediaLimits = LIMITS, keep_files: bool = False):
        self.limits, self._side, self._keep_files = limits, side, keep_files
        self._clip_decoder = ClipDecoder(limits)
        self._slots = anyio.CapacityLimiter(2)

    async def picture(self, path: str) -> Attachment:
        """The attachment of an uploaded picture.

        Raises:
            MediaError: the file is gone, broken or above a limit.
        """
        return await anyio.to_thread.run_sync(self._picture, path, limiter=self._slots)

    def _picture(self, path: str) -> Attachment:
        name = Path(path).name
        try:
            data = _read(path, self.limits.max_image_bytes)
            check_picture(data, self.limits)
            image = open_image(data)
        except MediaError as error:
            raise error.at(name) from error
        except ValueError as error:  # found by decoding only
            raise MediaError(f"{name}: the picture is broken or truncated") from error
        return Attachment("image", name, data, (image.size,), (small(image),))

    async def clip(self, path: str, frames: int) -> Attachment:
        """The attachment of an uploaded clip.

        Args:
            path: of the file.
            frames: number of frames, spread over the clip.
        Raises:
            MediaError: see `picture`; or an invalid number of frames.
        """
        name = Path(path).name
        if not 1 <= frames <= self.limits.max_frames:
            raise MediaError(f"{frames} frames are asked for; 1 to {self.limits.max_frames} are taken")
        try:
            data = await anyio.to_thread.run_sync(_read, path, self.limits.max_video_bytes)
            pictures = await self._clip_decoder.frames(data, {"num_segments": frames})
        except MediaError as error:
            raise error.at(name) from error
        previews = tuple(small(frame, 160) for frame in pictures)
        pictures = [frame.resize((self._side, self._side)) for frame in pictures]
        sizes = tuple(frame.size for frame in pictures)
        return Attachment("video", name, pictures, sizes, previews, data if self._keep_files else None)

    def check_together(self, attachments: Iterable[Attachment]) -> None:
        """Refuse a conversation with too many pictures or pixels.

        Raises:
            MediaError: too many pictures or pixels in one conversation; names both numbers.
        """
        attachments = list(attachments)
        pictures = sum(each.kind == "image" for each in attachments)
        if pictures > self.limits.max_images:
            raise MediaError(f"the conversation has {pictures} pictures; {self.limits.max_images} are taken; clear it")
        pixels, limit = sum(each.pixels for each in attachments), self.limits.max_total_pixels
        if pixels > limit:
            raise MediaError(f"the conversation's pictures have {pixels} pixels; {limit} are taken; clear it", 413)


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError:
        raise MediaError("the upload is gone; add it again") from None
    if len(data) > limit:
        raise MediaError(f"the file is larger than {limit // _MIB} MiB", 413)
    return data
