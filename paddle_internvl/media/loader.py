"""Media of untrusted messages made safe: fetched, checked against limits, and substituted in the dialogue.

In: a parsed `Dialogue` whose media are URLs. Out: the same dialogue whose pictures are checked bytes and whose clips
are RGB frames, which `opening.open_media` opens without touching a file or a network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeVar

import anyio

from paddle_internvl.media.byte_budget import ByteBudget
from paddle_internvl.media.clip_decoder import ClipDecoder
from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.fetcher import Fetcher
from paddle_internvl.media.file_urls import read_file_url
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.options import MediaOptions, limit_tiles, parse_options
from paddle_internvl.media.picture_checks import check_picture
from paddle_internvl.prompt.messages import Dialogue, Media

T = TypeVar("T")
_CONCURRENT_CHECKS = 4  # threads that decode URLs and check pictures, of all requests together


class MediaLoader:
    """Loads the media of all requests of a server.

    Args:
        limits: for the media of one request.
        fetcher: of http(s) URLs; None: one that connects to public addresses only.
    """

    def __init__(self, limits: MediaLimits, fetcher: Fetcher | None = None):
        self._limits = limits
        self._fetcher = fetcher or Fetcher(limits)
        self._bytes = ByteBudget(limits.max_pending_bytes)
        self._clip_decoder = ClipDecoder(limits)
        self._checks = anyio.CapacityLimiter(_CONCURRENT_CHECKS)
        self._clips = anyio.CapacityLimiter(limits.concurrent_decodes)

    async def load(self, dialogue: Dialogue) -> Dialogue:
        """See `loaded`; without a limit of the frames that all requests hold."""
        async with self.loaded(dialogue) as loaded:
            return loaded

    @asynccontextmanager
    async def loaded(self, dialogue: Dialogue) -> AsyncIterator[Dialogue]:
        """Load and check every picture and clip. Cancelling closes sockets and kills decoder processes.

        The frames of clips are large: `concurrent_decodes` requests with clips are inside the context at a time.

        Args:
            dialogue: its media are http(s), data or file URLs.
        Returns:
            The dialogue with media whose source is the bytes of a picture or the RGB PIL images of a clip, and whose
            options are at most the limits.
        Raises:
            MediaError: a medium that is unreachable, broken, not allowed or above a limit; names its place.
        """
        media = dialogue.media
        options = [self._checked_options(medium) for medium in media]  # of all, before the first one is fetched
        self._check_counts(media)
        with self._bytes.share() as take:
            media = await self._each(partial(self._with_content, take), media, options)
            async with self._clips if any(medium.kind == "video" for medium in media) else nullcontext():
                yield dialogue.substitute_media(await self._each(self._with_frames, media, options))

    async def _each(
        self,
        load: Callable[[Media, MediaOptions], Awaitable[Media]],
        media: Sequence[Media],
        options: Sequence[MediaOptions],
    ) -> list[Media]:
        """Every medium loaded, at once; the first failure, or too many pixels in all, ends the others."""
        loaded, failures = list(media), []

        async def load_one(index: int) -> None:
            try:
                loaded[index] = await load(media[index], options[index])
            except MediaError as error:
                failures.append(error.at(media[index].place))
            pixels, limit = sum(medium.pixels for medium in loaded), self._limits.max_total_pixels
            if pixels > limit:
                failures.append(MediaError(f"the media have {pixels} pixels; {limit} are taken", 413))
            if failures:
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(media)):
                group.start_soon(load_one, index)
        if failures:
            raise failures[0]
        return loaded

    def _checked_options(self, medium: Media) -> MediaOptions:
        """The options of a medium that may be loaded; its numbers of tiles are lowered to the limit."""
        max_frames, max_tiles = self._limits.max_frames, self._limits.max_tiles_per_picture
        if not isinstance(medium.source, str):
            raise MediaError(f"{medium.place}: the {medium.kind} is no URL")
        try:
            options = parse_options(medium.kind, medium.options)
        except ValueError as error:
            raise MediaError(f"{medium.place}: {error}") from error
        if options.frames.get("num_segments", 1) > max_frames:
            raise MediaError(f"{medium.place}: num_segments is too large; at most {max_frames} frames are taken")
        return replace(options, tiles=limit_tiles(options.tiles, max_tiles))

    def _check_counts(self, media: list[Media]) -> None:
        for kind, limit in (("image", self._limits.max_images), ("video", self._limits.max_videos)):
            count = sum(medium.kind == kind for medium in media)
            if count > limit:
                raise MediaError(f"the messages hold {count} {kind}s; at most {limit} are taken")

    async def _with_content(self, take: Callable[[int], None], medium: Media, options: MediaOptions) -> Media:
        """The medium with the bytes behind its URL as source; a picture is checked. take: see `ByteBudget.share`."""
        medium = replace(medium, source=await self._content(medium, take), options=options.tiles)
        if medium.kind == "video":
            return medium
        return replace(medium, pixels=await self._in_thread(check_picture, medium.source, self._limits))

    async def _with_frames(self, medium: Media, options: MediaOptions) -> Media:
        """The medium with the frames of a clip as source."""
        if medium.kind == "image":
            return medium
        frames = await self._clip_decoder.frames(medium.source, options.frames)
        tiles = limit_tiles(options.tiles, max(1, self._limits.max_tiles_per_video // len(frames)))
        pixels = sum(frame.width * frame.height for frame in frames)
        return replace(medium, source=frames, options=tiles, pixels=pixels)

    async def _in_thread(self, work: Callable[..., T], *arguments) -> T:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._checks)

    async def _content(self, medium: Media, take: Callable[[int], None]) -> bytes:
        """The bytes behind a medium's URL; those of a data URL are limited with the bodies of requests."""
        limits, url, is_image = self._limits, medium.source, medium.kind == "image"
        max_bytes = limits.max_image_bytes if is_image else limits.max_video_bytes
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return await self._in_thread(decode_data_url, url, medium.kind, max_bytes)
        if scheme == "file":
            content = await self._in_thread(read_file_url, url, limits.allowed_local_path, max_bytes)
            take(len(content))
            return content
        if scheme in ("http", "https"):
            timeout = limits.image_seconds if is_image else limits.video_seconds
            return await self._fetcher.fetch(url, max_bytes, timeout, take)
        raise MediaError(f"the {medium.kind} is no http(s):// or data: URL")

    async def aclose(self) -> None:
        """Close the open connections."""
        await self._fetcher.aclose()
