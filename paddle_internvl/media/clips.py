"""The frames of a stranger's clip, decoded in a process of its own that can be killed.

In: bytes of a file and frame options. Out: RGB frames as PIL images, or a `MediaError`. Decoders are large programs in
C; what hangs, crashes or swallows memory in them is `clip_worker`'s process, one for each clip, with no secret in its
environment. Clip and frames pass through files that never have a name, so none is left behind whatever happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import anyio
from PIL import Image

import paddle_internvl
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits

_WORKER = "paddle_internvl.media.clip_worker"
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_LONGEST_ANSWER = 1 << 16
_BROKEN = "the clip can't be decoded: it is broken, truncated or of a kind that is not read"
# Containers, by what stands where. Playlists, which name further files and addresses, are none of them.
_SIGNATURES = (
    (0, b"\x1a\x45\xdf\xa3"),  # WebM, Matroska
    (0, b"GIF8"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (4, b"ftyp"),  # MP4, MOV, 3GP
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (8, b"AVI "),
    (8, b"WEBP"),
)


class ClipDecoder:
    """Decodes for all requests of a server, so many clips at a time as the limits allow."""

    def __init__(self, limits: MediaLimits):
        self._limits = limits
        self._turns = anyio.CapacityLimiter(limits.concurrent_decodes)

    async def frames(self, data: bytes, options: Mapping) -> list[Image.Image]:
        """The frames that `options` ask for. Cancelling kills the process.

        Args:
            options: of `preprocess.media.FRAME_OPTIONS`, checked.
        Raises:
            MediaError: no clip, broken, beyond a limit, or too slow to decode.
        """
        if not any(data.startswith(mark, at) for at, mark in _SIGNATURES):
            raise MediaError("the clip is no MP4, MOV, WebM, Matroska, AVI, GIF, animated PNG or animated WebP")
        async with self._turns:
            with tempfile.TemporaryFile() as clip, tempfile.TemporaryFile() as answer:
                await anyio.to_thread.run_sync(_write, clip, data)
                await self._decode(clip, answer, options)
                return await anyio.to_thread.run_sync(_read, answer)

    async def _decode(self, clip: BinaryIO, answer: BinaryIO, options: Mapping) -> None:
        files = clip.fileno(), answer.fileno()
        process = await anyio.open_process(
            [sys.executable, "-m", _WORKER, *map(str, files), json.dumps(_asked(options, self._limits))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=files,
        )
        try:
            with anyio.fail_after(self._limits.decode_seconds):
                code = await process.wait()
        except TimeoutError as error:
            raise MediaError(f"the clip takes more than {self._limits.decode_seconds:g} s to decode") from error
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if code == -signal.SIGXCPU:
            raise MediaError(f"the clip takes more than {self._limits.decode_seconds:g} s to decode")
        if code:
            raise MediaError(_BROKEN)


def _asked(options: Mapping, limits: MediaLimits) -> dict:
    names = (
        *("max_frames", "max_video_frames", "max_total_pixels", "decode_seconds", "decode_memory"),
        *("max_image_pixels", "max_image_side", "max_aspect"),
    )
    return {"options": dict(options), "limits": {name: getattr(limits, name) for name in names}}


def _environment() -> dict[str, str]:
    """What the process needs to find Python's packages and this one; no keys, one thread for each library."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {
        "PYTHONPATH": str(Path(paddle_internvl.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file",
    }


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


def _read(answer: BinaryIO) -> list[Image.Image]:
    """The frames of an answer, which is as little to be trusted as the clip."""
    try:
        answer.seek(0)
        said = json.loads(answer.readline(_LONGEST_ANSWER))
        if "error" in said:
            raise MediaError(str(said["error"]), int(said["status"]))
        sizes = [(int(width), int(height)) for width, height in said["sizes"]]
        held = os.fstat(answer.fileno()).st_size - answer.tell()
        if not sizes or min(map(min, sizes)) < 1 or sum(width * height * 3 for width, height in sizes) != held:
            raise ValueError("the frames are not what the answer says")
        return [Image.frombytes("RGB", size, answer.read(size[0] * size[1] * 3)) for size in sizes]
    except MediaError:
        raise
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise MediaError(_BROKEN) from error
