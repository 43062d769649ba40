"""Limits for media of untrusted input: every ceiling of fetching, decoding and tiling, in one dataclass.

`MediaLimits` only holds and checks the values; `loader`, `fetcher`, `picture_checks` and `clip_decoder` enforce them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_type_hints

_MIB = 2**20
_NUMBERS = {bool: bool, int: int, float: (int, float)}  # type of a limit -> types of its values


def _limit(default: float, minimum: float = 1):
    return field(default=default, metadata={"minimum": minimum})


def _seconds(default: float):
    return _limit(default, 0.001)


@dataclass(frozen=True)
class MediaLimits:
    """Limits for the pictures and clips of one request, except where an argument names another scope.

    Args:
        remote: whether http(s) URLs are fetched.
        allowed_domains: hosts that are fetched from, in full; (): any public one.
        allow_ports: further ports than 80 and 443.
        allowed_local_path: folder below which `file://` URLs are read; None: none.
        max_redirects: redirects of a fetch.
        connect_seconds: time to open a connection.
        read_seconds: time between two packets.
        image_seconds: time of a picture's whole fetch, redirects and the wait for a free connection included.
        video_seconds: the same for a clip.
        concurrent_fetches: connections of all requests together.
        max_images: pictures.
        max_videos: clips.
        max_image_bytes: bytes of a picture as it is sent.
        max_video_bytes: bytes of a clip as it is sent.
        max_image_pixels: pixels of a picture or frame.
        max_image_side: pixels of the long side of a picture or frame.
        max_aspect: long side / short side of a picture or frame.
        max_image_frames: frames of an animated picture.
        max_pending_bytes: bytes of the fetched and opened media of all requests together.
        max_total_pixels: pixels of all pictures and sampled frames together.
        max_tiles_per_picture: tiles that a picture may ask for.
        max_tiles_per_video: tiles of all frames of a clip.
        max_video_frames: frames of a clip.
        max_frames: frames sampled from a clip.
        decode_seconds: time to decode a clip.
        decode_memory: bytes of address space of the process that decodes a clip.
        concurrent_decodes: clips decoded at a time, of all requests together.
    Raises:
        ValueError: a limit of the wrong type or too small, an invalid host, a folder that does not exist.
    """

    remote: bool = _limit(True)
    allowed_domains: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = ()
    allowed_local_path: Path | None = None
    max_redirects: int = _limit(3, 0)
    connect_seconds: float = _seconds(5.0)
    read_seconds: float = _seconds(5.0)
    image_seconds: float = _seconds(10.0)
    video_seconds: float = _seconds(30.0)
    concurrent_fetches: int = _limit(16)

    max_images: int = _limit(16, 0)
    max_videos: int = _limit(1, 0)
    max_image_bytes: int = _limit(20 * _MIB)
    max_video_bytes: int = _limit(200 * _MIB)
    max_image_pixels: int = _limit(64_000_000)
    max_image_side: int = _limit(16384)
    max_aspect: int = _limit(200)
    max_image_frames: int = _limit(1000)
    max_pending_bytes: int = _limit(512 * _MIB)
    max_total_pixels: int = _limit(128 * _MIB)
    max_tiles_per_picture: int = _limit(24)
    max_tiles_per_video: int = _limit(128)

    max_video_frames: int = _limit(36000)
    max_frames: int = _limit(64)
    decode_seconds: float = _seconds(30.0)
    decode_memory: int = _limit(4096 * _MIB, 512 * _MIB)
    concurrent_decodes: int = _limit(2)

    def __post_init__(self):
        types = get_type_hints(MediaLimits)
        for limit in fields(self):
            if types[limit.name] in _NUMBERS:
                _check(limit.name, getattr(self, limit.name), types[limit.name], limit.metadata["minimum"])
        object.__setattr__(self, "allowed_domains", tuple(_host(host) for host in self.allowed_domains))
        object.__setattr__(self, "allow_ports", tuple(self.allow_ports))
        for port in self.allow_ports:
            _check("allow_ports", port, int, 1)
        if self.allowed_local_path is not None:
            folder = Path(self.allowed_local_path).expanduser().resolve()
            if not folder.is_dir():
                raise ValueError(f"allowed_local_path={folder} is no folder")
            object.__setattr__(self, "allowed_local_path", folder)


def _check(name: str, value, kind: type, minimum: float) -> None:
    is_of_kind = isinstance(value, _NUMBERS[kind]) and isinstance(value, bool) == (kind is bool)
    if not is_of_kind or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is no {'switch' if kind is bool else 'number of its kind'}")
    if kind is not bool and value < minimum:
        raise ValueError(f"{name}={value!r} is below {minimum}")


def _host(host) -> str:
    if not isinstance(host, str) or not host or any(mark in host for mark in "/:@* "):
        raise ValueError(f"allowed_domains: {host!r} is no host like images.example.com")
    return host.lower().rstrip(".")
