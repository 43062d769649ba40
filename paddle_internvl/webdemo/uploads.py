"""Uploads of strangers to attachments: read, checked before they are decoded, clips decoded in a process of their own.

In: the path of an uploaded file. Out: an `Attachment`, or a `MediaError` that names the file. Checks and decoders are
the server's (`serve.pictures`, `serve.clips`). Knows no page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio
from PIL import Image

from paddle_internvl.media.clips import ClipDecoder
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.images import open_image
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.picture_checks import pixels_of
from paddle_internvl.webdemo.pictures import data_url, small

_MIB = 2**20
MOST_FRAMES = 32
LIMITS = MediaLimits(
    remote=False,
    max_images=8,
    max_image_bytes=20 * _MIB,
    max_video_bytes=64 * _MIB,
    max_image_pixels=32_000_000,
    max_total_pixels=64 * _MIB,
    max_frames=MOST_FRAMES,
)


@dataclass(frozen=True)
class Attachment:
    """A picture or clip of a question.

    Attributes:
        kind: 'image' or 'video'. name: of the file. source: bytes of the picture's file, or the frames of the clip.
        sizes: of the pictures, pixels. previews: small copies of them.
    """

    kind: str
    name: str
    source: bytes | list[Image.Image] = field(repr=False)
    sizes: tuple[tuple[int, int], ...]
    previews: tuple[Image.Image, ...] = field(repr=False)

    @cached_property
    def urls(self) -> tuple[str, ...]:
        """The previews as data URLs."""
        return tuple(map(data_url, self.previews))

    @property
    def pixels(self) -> int:
        """Of all its pictures."""
        return sum(width * height for width, height in self.sizes)

    def part(self, source=None) -> dict:
        """What a message holds for it. source: stands for the pixels; None: they themselves."""
        return {"type": self.kind, self.kind: self.source if source is None else source}


class Receiver:
    """Reads the uploads of all visitors, few at a time.

    Args:
        side: S, pixels of a tile. Frames are kept at that size: a frame is one tile, so the model sees no more of it.
    """

    def __init__(self, side: int, limits: MediaLimits = LIMITS):
        self.limits, self._side = limits, side
        self._clips = ClipDecoder(limits)
        self._turns = anyio.CapacityLimiter(2)

    async def picture(self, path: str) -> Attachment:
        """The picture of an uploaded file.

        Raises:
            MediaError: it is gone, broken or beyond a limit.
        """
        return await anyio.to_thread.run_sync(self._picture, path, limiter=self._turns)

    def _picture(self, path: str) -> Attachment:
        name = Path(path).name
        try:
            data = _read(path, self.limits.max_image_bytes)
            pixels_of(data, self.limits)
            image = open_image(data)
        except MediaError as error:
            raise error.at(name) from error
        except ValueError as error:  # what only decoding finds
            raise MediaError(f"{name}: the picture is broken or truncated") from error
        return Attachment("image", name, data, (image.size,), (small(image),))

    async def clip(self, path: str, frames: int) -> Attachment:
        """So many frames, spread over the clip of an uploaded file.

        Raises:
            MediaError: see `picture`; or a number of frames that is none or too large.
        """
        name = Path(path).name
        if not 1 <= frames <= self.limits.max_frames:
            raise MediaError(f"{frames} frames are asked for; 1 to {self.limits.max_frames} are taken")
        try:
            data = await anyio.to_thread.run_sync(_read, path, self.limits.max_video_bytes)
            pictures = await self._clips.frames(data, {"num_segments": frames})
        except MediaError as error:
            raise error.at(name) from error
        previews = tuple(small(frame, 160) for frame in pictures)
        pictures = [frame.resize((self._side, self._side)) for frame in pictures]
        return Attachment("video", name, pictures, tuple(frame.size for frame in pictures), previews)

    def check_together(self, attachments: Iterable[Attachment]) -> None:
        """Refuse more than may be decoded together.

        Raises:
            MediaError: too many pictures or pixels in one conversation; names both numbers.
        """
        attachments = list(attachments)
        pictures = sum(each.kind == "image" for each in attachments)
        if pictures > self.limits.max_images:
            raise MediaError(f"the conversation has {pictures} pictures; {self.limits.max_images} are taken; clear it")
        pixels, most = sum(each.pixels for each in attachments), self.limits.max_total_pixels
        if pixels > most:
            raise MediaError(f"the conversation's pictures have {pixels} pixels; {most} are taken; clear it", 413)


def _read(path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError:
        raise MediaError("the upload is gone; add it again") from None
    if len(data) > most:
        raise MediaError(f"the file is larger than {most // _MIB} MiB", 413)
    return data
