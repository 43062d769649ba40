"""Sandbox process that decodes one clip: `python -m paddle_internvl.media.clip_worker CLIP OUTPUT JOB`.

In: descriptors of two open files, and JSON of frame options and limits. Out: into the second file, a line of JSON with
the frames' sizes or an error, then the frames' RGB bytes. It limits its own memory and time, so that it also ends when
its parent is gone. It uses no network and writes nothing to stdout or stderr.
"""

from __future__ import annotations

import errno
import json
import math
import resource
import signal
import sys

from paddle_internvl.media.errors import EXIT_NO_SPACE, MediaError
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.picture_checks import check_size
from paddle_internvl.preprocess.frames import DEFAULT_FRAMES, frame_indices
from paddle_internvl.preprocess.video import Clip, open_clip

_GRACE_SECONDS = 5
_CORES = 4  # seconds of processor time in a second: decoders run threads


def main(clip_file: int, output_file: int, job: dict) -> None:
    """Decode the clip and write its frames, or the error.

    Args:
        clip_file, output_file: file descriptors.
        job: {"options": frame options, "limits": fields of `MediaLimits`}.
    """
    limits = MediaLimits(**job["limits"])
    _limit_resources(limits)
    with open(output_file, "wb") as output:
        try:
            with open_clip(f"/dev/fd/{clip_file}") as clip:
                frames = _frames(clip, job["options"], limits)
        except (MediaError, ImportError) as error:
            if isinstance(error, ImportError):
                error = MediaError("this server has no reader for clips of this kind")
            output.write(json.dumps({"error": str(error), "status": error.status}).encode() + b"\n")
            return
        output.write(json.dumps({"sizes": [frame.size for frame in frames]}).encode() + b"\n")
        for frame in frames:
            output.write(frame.tobytes())


def _limit_resources(limits: MediaLimits) -> None:
    seconds = math.ceil(limits.decode_seconds) + _GRACE_SECONDS
    signal.alarm(seconds)
    resources = {
        resource.RLIMIT_AS: limits.decode_memory,
        resource.RLIMIT_CPU: seconds * _CORES,
        resource.RLIMIT_FSIZE: 3 * limits.max_total_pixels + 2**20,
        resource.RLIMIT_CORE: 0,
    }
    for name, limit in resources.items():
        _, hard = resource.getrlimit(name)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (limit, limit))


def _frames(clip: Clip, options: dict, limits: MediaLimits) -> list:
    """The requested frames. The container's header is checked first, then the size of one decoded frame."""
    if not 1 <= clip.frames <= limits.max_video_frames:
        raise MediaError(f"the clip has {clip.frames} frames; 1 to {limits.max_video_frames} are taken")
    if not 0 < clip.fps < math.inf:
        raise MediaError("the clip has no rate of frames")
    if not options.keys() & {"num_segments", "fps"}:
        options = {**options, "num_segments": min(DEFAULT_FRAMES, limits.max_frames)}
    try:
        indices = frame_indices(clip, **options).tolist()
    except (ValueError, OverflowError) as error:
        raise MediaError(str(error)) from error
    if len(indices) > limits.max_frames:
        raise MediaError(f"{len(indices)} frames are asked for; at most {limits.max_frames} are taken")
    (first,) = clip.read(indices[:1])
    pixels = check_size("the clip", *first.size, limits)
    if pixels * len(indices) > limits.max_total_pixels:
        raise MediaError(
            f"{len(indices)} frames of {first.width}x{first.height} are more than {limits.max_total_pixels} pixels; "
            "ask for fewer",
            413,
        )
    return clip.read(indices)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
    except OSError as error:
        sys.exit(EXIT_NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1)
