"""Decoding of an untrusted clip in a sandbox process (`clip_worker`), which is killed at a time limit.

In: bytes of a file and frame options. Out: RGB frames as PIL images, or a `MediaError`. Decoders are large C programs
that may hang, crash or take all memory; one process for each clip confines them, without secrets in its environment.
Clip and frames pass through unnamed temporary files, so that no file is left behind.
"""

from __future__ import annotations

import errno
import json
import logging
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
from paddle_internvl.media.errors import EXIT_NO_SPACE, MediaError
from paddle_internvl.media.limits import MediaLimits

_log = logging.getLogger(__name__)
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_MAX_HEADER = 1 << 16  # bytes of the JSON line
_BROKEN = "the clip can't be decoded: it is broken, truncated or of a kind that is not read"
# Containers: (offset, bytes). Playlists are left out, because they name further files and addresses.
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
    """Decodes the clips of all requests of a server.

    Args:
        limits: of a clip, its frames, time and memory, and of the clips decoded at a time.
        worker: module of the sandbox process.
    """

    def __init__(self, limits: MediaLimits, worker: str = "paddle_internvl.media.clip_worker"):
        self._limits, self._worker = limits, worker
        self._slots = anyio.CapacityLimiter(limits.concurrent_decodes)

    async def frames(self, data: bytes, options: Mapping) -> list[Image.Image]:
        """Decode the requested frames of a clip. Cancelling kills the process.

        Args:
            data: of the clip's file.
            options: checked frame options, `media.options.MediaOptions.frames`.
        Returns:
            RGB PIL images.
        Raises:
            MediaError: no clip, broken, above a limit, or too slow to decode.
        """
        if not any(data.startswith(mark, at) for at, mark in _SIGNATURES):
            raise MediaError("the clip is no MP4, MOV, WebM, Matroska, AVI, GIF, animated PNG or animated WebP")
        async with self._slots:
            try:
                with tempfile.TemporaryFile(buffering=0) as clip, tempfile.TemporaryFile() as output:
                    await anyio.to_thread.run_sync(_write, clip, data)
                    await self._run_worker(clip, output, options)
                    return await anyio.to_thread.run_sync(_read_frames, output)
            except OSError as error:
                if error.errno not in _STORAGE_ERRORS:
                    raise
                raise _storage_full(error.strerror) from error

    async def _run_worker(self, clip: BinaryIO, output: BinaryIO, options: Mapping) -> None:
        files = clip.fileno(), output.fileno()
        process = await anyio.open_process(
            [sys.executable, "-m", self._worker, *map(str, files), json.dumps(_job(options, self._limits))],
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
        if code == EXIT_NO_SPACE:
            raise _storage_full(os.strerror(errno.ENOSPC))
        if code:
            raise MediaError(_BROKEN)


def _job(options: Mapping, limits: MediaLimits) -> dict:
    """The options and limits that `clip_worker` needs, as JSON values."""
    names = (
        *("max_frames", "max_video_frames", "max_total_pixels", "decode_seconds", "decode_memory"),
        *("max_image_pixels", "max_image_side", "max_aspect"),
    )
    return {"options": dict(options), "limits": {name: getattr(limits, name) for name in names}}


def _environment() -> dict[str, str]:
    """The worker's environment: Python's and this package's paths, one thread for each library, no API keys."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {
        "PYTHONPATH": str(Path(paddle_internvl.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file",
    }


def _write(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _storage_full(reason: str) -> MediaError:
    """The error of a temporary folder that takes no files; the log names the folder."""
    _log.error("no temporary file can be written in %s: %s", tempfile.tempdir or "any temporary folder", reason)
    return MediaError("the server has no room for the clip's frames; try again later", 507)


def _read_frames(output: BinaryIO) -> list[Image.Image]:
    """The frames of the worker's output, which is as untrusted as the clip."""
    try:
        output.seek(0)
        header = json.loads(output.readline(_MAX_HEADER))
        if "error" in header:
            raise MediaError(str(header["error"]), int(header["status"]))
        sizes = [(int(width), int(height)) for width, height in header["sizes"]]
        rest = os.fstat(output.fileno()).st_size - output.tell()
        if not sizes or min(map(min, sizes)) < 1 or sum(width * height * 3 for width, height in sizes) != rest:
            raise ValueError("sizes and bytes of the frames differ")
        return [Image.frombytes("RGB", size, output.read(size[0] * size[1] * 3)) for size in sizes]
    except MediaError:
        raise
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise MediaError(_BROKEN) from error
