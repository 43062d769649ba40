"""What media of strangers may cost: every ceiling of fetching, decoding and cutting, in one dataclass.

In: numbers, hosts, a folder. Out: `MediaLimits`, checked. It enforces nothing: those who read it do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

_MIB = 2**20
_TYPES = {"int": int, "float": (int, float), "bool": bool}


def _limit(default: float, low: float = 1):
    return field(default=default, metadata={"low": low})


@dataclass(frozen=True)
class MediaLimits:
    """Ceilings for the pictures and clips of one request, where it does not say otherwise.

    Args:
        remote: whether http(s) URLs are fetched. allowed_domains: hosts that may be fetched from, spelled out; (): any
            public one. allow_ports: further ports than 80 and 443. allowed_local_path: folder that `file://` may name
            files of; None: none. max_redirects: of a fetch. connect_seconds, read_seconds: for one connection, for one
            piece. image_seconds, video_seconds: for a whole fetch, with all redirects and the wait for a turn.
        concurrent_fetches: of all requests together.
        max_images, max_videos: how many. max_image_bytes, max_video_bytes: of each, as it is sent.
        max_image_pixels, max_image_side, max_aspect: of a picture or a frame; pixels, pixels, long side : short side.
        max_image_frames: of an animated picture. max_total_pixels: of all pictures and sampled frames together.
        max_tiles_per_picture: crops that a picture may ask for. max_tiles_per_video: crops of all frames of a clip.
        max_video_frames: that a clip may have. max_frames: that may be sampled from it.
        decode_seconds: for a clip. decode_memory: bytes of address space of the process that decodes it.
        concurrent_decodes: of clips, of all requests together.
    Raises:
        ValueError: a limit that is no number of its kind or too small, a host that is none, a folder that is not there.
    """

    remote: bool = _limit(True)
    allowed_domains: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = ()
    allowed_local_path: Path | None = None
    max_redirects: int = _limit(3, 0)
    connect_seconds: float = _limit(5.0, 0.001)
    read_seconds: float = _limit(5.0, 0.001)
    image_seconds: float = _limit(10.0, 0.001)
    video_seconds: float = _limit(30.0, 0.001)
    concurrent_fetches: int = _limit(16)

    max_images: int = _limit(16, 0)
    max_videos: int = _limit(1, 0)
    max_image_bytes: int = _limit(20 * _MIB)
    max_video_bytes: int = _limit(200 * _MIB)
    max_image_pixels: int = _limit(64_000_000)
    max_image_side: int = _limit(16384)
    max_aspect: int = _limit(200)
    max_image_frames: int = _limit(1000)
    max_total_pixels: int = _limit(128 * _MIB)
    max_tiles_per_picture: int = _limit(24)
    max_tiles_per_video: int = _limit(128)

    max_video_frames: int = _limit(36000)
    max_frames: int = _limit(64)
    decode_seconds: float = _limit(30.0, 0.001)
    decode_memory: int = _limit(4096 * _MIB, 512 * _MIB)
    concurrent_decodes: int = _limit(2)

    def __post_init__(self):
        for limit in fields(self):
            if limit.type in _TYPES:
                _check(limit.name, getattr(self, limit.name), _TYPES[limit.type], limit.metadata["low"])
        object.__setattr__(self, "allowed_domains", tuple(_host(host) for host in self.allowed_domains))
        object.__setattr__(self, "allow_ports", tuple(self.allow_ports))
        for port in self.allow_ports:
            _check("allow_ports", port, int, 1)
        if self.allowed_local_path is not None:
            folder = Path(self.allowed_local_path).expanduser().resolve()
            if not folder.is_dir():
                raise ValueError(f"allowed_local_path={folder} is no folder")
            object.__setattr__(self, "allowed_local_path", folder)


def _check(name: str, value, kind, low: float) -> None:
    is_number = isinstance(value, kind) and isinstance(value, bool) == (kind is bool) and math.isfinite(value)
    if not is_number:
        raise ValueError(f"{name}={value!r} is no {'switch' if kind is bool else 'number of its kind'}")
    if kind is not bool and value < low:
        raise ValueError(f"{name}={value!r} is below {low}")


def _host(host) -> str:
    if not isinstance(host, str) or not host or any(mark in host for mark in "/:@* "):
        raise ValueError(f"allowed_domains: {host!r} is no host like images.example.com")
    return host.lower().rstrip(".")
