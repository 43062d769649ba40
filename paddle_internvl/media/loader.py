"""Media of untrusted messages made safe: fetched, checked against limits, and substituted in the dialogue.

In: a parsed `Dialogue` whose media are URLs. Out: the same dialogue whose pictures are checked bytes and whose clips
are RGB frames, which `opening.open_media` opens without touching a file or a network.
"""

from __future__ import annotations

from dataclasses import replace

import anyio

from paddle_internvl.media.clip_decoder import ClipDecoder
from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.fetcher import Fetcher
from paddle_internvl.media.file_urls import read_file_url
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.options import MediaOptions, limit_tiles, parse_options
from paddle_internvl.media.picture_checks import check_picture
from paddle_internvl.prompt.messages import Dialogue, Media


class MediaLoader:
    """Loads the media of all requests of a server.

    Args:
        limits: for the media of one request.
        fetcher: of http(s) URLs; None: one that connects to public addresses only.
    """

    def __init__(self, limits: MediaLimits, fetcher: Fetcher | None = None):
        self._limits = limits
        self._fetcher = fetcher or Fetcher(limits)
        self._clip_decoder = ClipDecoder(limits)

    async def load(self, dialogue: Dialogue) -> Dialogue:
        """Load and check every picture and clip. Cancelling closes sockets and kills decoder processes.

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
        loaded: dict[int, tuple[Media, int]] = {}
        failures: list[MediaError] = []

        async def load(index: int) -> None:
            try:
                loaded[index] = await self._load(media[index], options[index])
            except MediaError as error:
                failures.append(error.at(media[index].place))
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(media)):
                group.start_soon(load, index)
        if failures:
            raise failures[0]
        pixels = sum(pixels for _, pixels in loaded.values())
        if pixels > self._limits.max_total_pixels:
            raise MediaError(f"the media have {pixels} pixels; {self._limits.max_total_pixels} are taken", 413)
        return dialogue.substitute_media(loaded[index][0] for index in range(len(media)))

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

    async def _load(self, medium: Media, options: MediaOptions) -> tuple[Media, int]:
        """The medium with its content as source, and its pixels."""
        data = await self._content(medium)
        if medium.kind == "image":
            pixels = await anyio.to_thread.run_sync(check_picture, data, self._limits)
            return replace(medium, source=data, options=options.tiles), pixels
        frames = await self._clip_decoder.frames(data, options.frames)
        tiles = limit_tiles(options.tiles, max(1, self._limits.max_tiles_per_video // len(frames)))
        return replace(medium, source=frames, options=tiles), sum(frame.width * frame.height for frame in frames)

    async def _content(self, medium: Media) -> bytes:
        """The bytes behind a medium's URL."""
        limits, url, is_image = self._limits, medium.source, medium.kind == "image"
        max_bytes = limits.max_image_bytes if is_image else limits.max_video_bytes
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return await anyio.to_thread.run_sync(decode_data_url, url, medium.kind, max_bytes)
        if scheme == "file":
            return await anyio.to_thread.run_sync(read_file_url, url, limits.allowed_local_path, max_bytes)
        if scheme in ("http", "https"):
            timeout = limits.image_seconds if is_image else limits.video_seconds
            return await self._fetcher.fetch(url, max_bytes, timeout)
        raise MediaError(f"the {medium.kind} is no http(s):// or data: URL")

    async def aclose(self) -> None:
        """Close the open connections."""
        await self._fetcher.aclose()
