"""Frame sampling: which frames of a clip are shown. Numbers only: knows no file and no picture."""

from __future__ import annotations

import numpy as np

DEFAULT_FRAMES = 8


def get_index(bound, fps: float, max_frame: int, first_idx: int = 0, num_segments: int = 32) -> np.ndarray:
    """Frames in the middle of `num_segments` equal parts of a clip.

    Args:
        bound: (start, end) in seconds, or None for the whole clip. fps: frames per second. max_frame: last index.
        first_idx: first index allowed. num_segments: frames wanted.
    Returns:
        int64 [num_segments], repeated where the clip is shorter than that.
    Source: upstream model cards, `get_index` (np.round rounds halves to even).
    """
    start, end = (bound[0], bound[1]) if bound else (-100000, 100000)
    first = max(first_idx, round(start * fps))
    last = min(round(end * fps), max_frame)
    step = float(last - first) / num_segments
    return np.array([int(first + step / 2 + np.round(step * k)) for k in range(num_segments)])


def frame_indices(clip, num_segments: int | None = None, fps: float | None = None, bound=None) -> np.ndarray:
    """Which frames of a clip to show: `num_segments` of them, or `fps` per second; never a frame twice.

    Args:
        clip: a `media.video.Clip`. bound: (start, end) in seconds or None.
        num_segments: default DEFAULT_FRAMES, of a list of frames all; the whole of a clip that is shorter.
    Raises:
        ValueError: both at once, a number below 1, or a bound with no frame in it.
    """
    if fps is not None and num_segments is not None:
        raise ValueError(f"num_segments={num_segments} and fps={fps} exclude each other")
    if fps is not None and not fps > 0 or num_segments is not None and num_segments < 1:
        raise ValueError(f"num_segments={num_segments}, fps={fps}: must be above 0")
    if bound is not None and not 0 <= bound[0] < bound[1]:
        raise ValueError(f"bound={tuple(bound)}: 0 <= start < end is needed, in seconds")
    first = 0 if bound is None else round(bound[0] * clip.fps)
    last = clip.frames - 1 if bound is None else min(round(bound[1] * clip.fps), clip.frames - 1)
    if first > last:
        raise ValueError(f"bound={tuple(bound)} begins behind the end of the clip at {clip.frames / clip.fps:.2f} s")
    if fps is not None:
        num_segments = max(1, round((last - first + 1) / clip.fps * fps))
    elif num_segments is None:
        num_segments = clip.frames if clip.is_list else DEFAULT_FRAMES
    if num_segments > last - first:
        return np.arange(first, last + 1)
    return get_index(bound, clip.fps, clip.frames - 1, num_segments=num_segments)
