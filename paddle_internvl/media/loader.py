"""Pictures and clips that a stranger's request names, made safe: fetched, checked, and put in the place of their names.

In: OpenAI-style messages as JSON has them. Out: the same messages, whose pictures are checked bytes and whose clips are
frames. Texts and all that is no medium stay as they are; `prompt.messages` judges them. Knows no HTTP server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio

from paddle_internvl.media.clips import ClipDecoder
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.fetching import Fetcher
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.opening import FRAME_OPTIONS
from paddle_internvl.media.options import cap_tiles, checked_options
from paddle_internvl.media.picture_checks import pixels_of
from paddle_internvl.media.sources import decode_data_url, read_file_url
from paddle_internvl.prompt.messages import Media, parse_messages

__all__ = ["MediaError", "MediaLoader"]


@dataclass(frozen=True)
class _Wanted:
    """A medium to load: its place, its kind and URL, and its options, checked."""

    message: int
    part: int
    kind: str
    url: str
    options: Mapping

    @property
    def where(self) -> str:
        return f"messages[{self.message}].content[{self.part}]"


class MediaLoader:
    """Loads for all requests of a server.

    Args:
        limits: what a request's media may cost. fetcher: instead of one that connects to public addresses only.
    """

    def __init__(self, limits: MediaLimits, fetcher: Fetcher | None = None):
        self._limits = limits
        self._fetcher = fetcher or Fetcher(limits)
        self._clips = ClipDecoder(limits)

    async def load(self, messages: Sequence[Mapping]) -> list[Mapping]:
        """The messages with every picture and clip loaded and checked. Cancelling closes sockets and kills decoders.

        Args:
            messages: see `prompt.messages`; sources are http(s), data or file URLs. They are not changed.
        Returns:
            New messages: a picture is {"type": "image", "image": bytes}, a clip {"type": "video", "video": [PIL
            images]}, each with its options, lowered to the limits.
        Raises:
            MediaError: the first medium that can't be had, is broken or beyond a limit.
        """
        wanted = self._wanted(messages)
        parts: dict[tuple[int, int], Mapping] = {}
        pixels: list[int] = []
        failures: list[MediaError] = []

        async def load(medium: _Wanted) -> None:
            try:
                part, size = await self._load(medium)
            except MediaError as error:
                failures.append(error.at(medium.where))
                group.cancel_scope.cancel()
            else:
                parts[medium.message, medium.part] = part
                pixels.append(size)

        async with anyio.create_task_group() as group:
            for medium in wanted:
                group.start_soon(load, medium)
        if failures:
            raise failures[0]
        if sum(pixels) > self._limits.max_total_pixels:
            raise MediaError(f"the media have {sum(pixels)} pixels; {self._limits.max_total_pixels} are taken", 413)
        return [
            {**message, "content": [parts.get((i, k), part) for k, part in enumerate(message["content"])]}
            if any(medium.message == i for medium in wanted)
            else message
            for i, message in enumerate(messages)
        ]

    def _wanted(self, messages: Sequence[Mapping]) -> list[_Wanted]:
        """All media of a request; nothing is fetched before all of them are allowed."""
        wanted = []
        for i, message in enumerate(messages):
            content = message.get("content") if isinstance(message, Mapping) else None
            for k, part in enumerate(content if isinstance(content, (list, tuple)) else ()):
                medium = _medium(part)
                if medium is None:
                    continue
                where = f"messages[{i}].content[{k}]"
                if not isinstance(medium.source, str):
                    raise MediaError(f"{where}: the {medium.kind} is no URL")
                try:
                    options = checked_options(medium.kind, medium.options, self._limits)
                except MediaError as error:
                    raise error.at(where) from error
                wanted.append(_Wanted(i, k, medium.kind, medium.source, options))
        for kind, most in (("image", self._limits.max_images), ("video", self._limits.max_videos)):
            count = sum(medium.kind == kind for medium in wanted)
            if count > most:
                raise MediaError(f"the messages hold {count} {kind}s; at most {most} are taken")
        return wanted

    async def _load(self, medium: _Wanted) -> tuple[Mapping, int]:
        """A part that holds the medium itself, and its pixels."""
        data = await self._bytes(medium)
        if medium.kind == "image":
            pixels = await anyio.to_thread.run_sync(pixels_of, data, self._limits)
            return {**medium.options, "type": "image", "image": data}, pixels
        sampling = {name: medium.options[name] for name in FRAME_OPTIONS if name in medium.options}
        tiling = {name: value for name, value in medium.options.items() if name not in sampling}
        frames = await self._clips.frames(data, sampling)
        tiling = cap_tiles(tiling, max(1, self._limits.max_tiles_per_video // len(frames)))
        return {**tiling, "type": "video", "video": frames}, sum(frame.width * frame.height for frame in frames)

    async def _bytes(self, medium: _Wanted) -> bytes:
        limits, is_image = self._limits, medium.kind == "image"
        most = limits.max_image_bytes if is_image else limits.max_video_bytes
        scheme = medium.url.partition(":")[0].lower()
        if scheme == "data":
            return await anyio.to_thread.run_sync(decode_data_url, medium.url, medium.kind, most)
        if scheme == "file":
            return await anyio.to_thread.run_sync(read_file_url, medium.url, limits.allowed_local_path, most)
        if scheme in ("http", "https"):
            seconds = limits.image_seconds if is_image else limits.video_seconds
            return await self._fetcher.fetch(medium.url, most, seconds)
        raise MediaError(f"the {medium.kind} is no http(s):// or data: URL")

    async def aclose(self) -> None:
        """Close what is open."""
        await self._fetcher.aclose()


def _medium(part) -> Media | None:
    """The medium that `prompt.messages` will see in a part; None: text, or a part that it will refuse."""
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        return None
    try:
        _, (turn,) = parse_messages([{"role": "user", "content": [part]}])
    except ValueError:
        return None
    return turn.parts[0] if isinstance(turn.parts[0], Media) else None
