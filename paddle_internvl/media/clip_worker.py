"""The process that decodes one clip: `python -m paddle_internvl.media.clip_worker CLIP ANSWER ASKED`.

In: numbers of two open files, and JSON of frame options and limits. Out: into the second file, a line of JSON with the
frames' sizes or an error, then the frames' RGB bytes. Bounds its own memory and time, so that it also ends when nobody
is left to kill it. Asks nothing of the network and says nothing on its outputs.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.picture_checks import check_size
from paddle_internvl.media.video import Clip, open_clip
from paddle_internvl.preprocess.frames import DEFAULT_FRAMES, frame_indices

_GRACE_SECONDS = 5
_CORES = 4  # of processor time in a second, decoders run threads


def main(clip_file: int, answer_file: int, asked: dict) -> None:
    """Decode, and write the answer."""
    limits = MediaLimits(**asked["limits"])
    _confine(limits)
    with open(answer_file, "wb") as answer:
        try:
            with open_clip(f"/dev/fd/{clip_file}") as clip:
                frames = _frames(clip, asked["options"], limits)
        except (MediaError, ImportError) as error:
            if isinstance(error, ImportError):
                error = MediaError("this server has no reader for clips of this kind")
            answer.write(json.dumps({"error": str(error), "status": error.status}).encode() + b"\n")
            return
        answer.write(json.dumps({"sizes": [frame.size for frame in frames]}).encode() + b"\n")
        for frame in frames:
            answer.write(frame.tobytes())


def _confine(limits: MediaLimits) -> None:
    seconds = math.ceil(limits.decode_seconds) + _GRACE_SECONDS
    signal.alarm(seconds)
    bounds = {
        resource.RLIMIT_AS: limits.decode_memory,
        resource.RLIMIT_CPU: seconds * _CORES,
        resource.RLIMIT_FSIZE: 3 * limits.max_total_pixels + 2**20,
        resource.RLIMIT_CORE: 0,
    }
    for bound, most in bounds.items():
        _, hard = resource.getrlimit(bound)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(bound, (most, most))


def _frames(clip: Clip, options: dict, limits: MediaLimits) -> list:
    """The frames asked for. What the container claims is checked first, then the size of one frame."""
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
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
