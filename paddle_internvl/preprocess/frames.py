"""Frame sampling: indices of the frames of a clip that a model is shown. Integers only, no file and no picture."""

from __future__ import annotations

import numpy as np

DEFAULT_FRAMES = 8


def get_index(bound, fps: float, max_frame: int, first_idx: int = 0, num_segments: int = 32) -> np.ndarray:
    """Frames in the middle of `num_segments` equal parts of a clip.

    Args:
        bound: (start, end) in seconds; None: the whole clip.
        fps: frames per second.
        max_frame: last index.
        first_idx: first index.
        num_segments: number of frames.
    Returns:
        int64 [num_segments]; indices repeat where the clip is shorter than that.
    Source: upstream model cards, `get_index` (np.round rounds halves to even).
    """
    start, end = (bound[0], bound[1]) if bound else (-100000, 100000)
    first = max(first_idx, round(start * fps))
    last = min(round(end * fps), max_frame)
    step = float(last - first) / num_segments
    return np.array([int(first + step / 2 + np.round(step * k)) for k in range(num_segments)])


def interval_frames(num_frames: int, length: int, sample: str, rng: np.random.Generator | None = None) -> np.ndarray:
    """Frames of equal intervals of a clip, as upstream samples them for training.

    Args:
        num_frames: number of frames; the last one is repeated where the clip is shorter.
        length: number of frames of the clip.
        sample: 'middle' takes the middle frame of each interval, 'rand' a random one.
        rng: of 'rand'.
    Returns:
        int64 [num_frames], ascending.
    Source: upstream `dataset.py`, `get_frame_indices`: 'rand' never takes the last frame of an interval, and takes
        random frames of the whole clip where an interval has only that one.
    """
    count = min(num_frames, length)
    edges = np.linspace(0, length, count + 1).astype(np.int64)
    starts, ends = edges[:-1], edges[1:] - 1
    if sample == "middle":
        indices = (starts + ends) // 2
    elif (starts < ends).all():
        indices = rng.integers(starts, ends)
    else:
        indices = np.sort(rng.permutation(length)[:count])
    return np.concatenate([indices, np.full(num_frames - count, indices[-1])])


def frame_range(clip, bound) -> tuple[int, int]:
    """First and last frame index of a clip within a bound.

    Args:
        clip: a `preprocess.video.Clip`.
        bound: (start, end) in seconds; None: the whole clip.
    Raises:
        ValueError: the bound begins behind the end of the clip.
    """
    if bound is None:
        return 0, clip.frames - 1
    first, last = max(0, round(bound[0] * clip.fps)), min(round(bound[1] * clip.fps), clip.frames - 1)
    if first > last:
        raise ValueError(f"bound={tuple(bound)} begins behind the end of the clip at {clip.frames / clip.fps:.2f} s")
    return first, last


def frame_indices(clip, num_segments: int | None = None, fps: float | None = None, bound=None) -> np.ndarray:
    """Indices of `num_segments` frames of a clip, or of `fps` frames per second; no frame twice.

    Args:
        clip: a `preprocess.video.Clip`.
        num_segments: number of frames, all of a shorter clip; None: DEFAULT_FRAMES, or all of a list of frames.
        fps: frames per second of the clip.
        bound: (start, end) in seconds; None: the whole clip.
    Returns:
        int64 [number of frames], ascending.
    Raises:
        ValueError: both num_segments and fps, a number that is not above 0, or a bound without a frame in the clip.
    """
    if fps is not None and num_segments is not None:
        raise ValueError(f"num_segments={num_segments} and fps={fps} exclude each other")
    if fps is not None and not fps > 0 or num_segments is not None and num_segments < 1:
        raise ValueError(f"num_segments={num_segments}, fps={fps}: must be above 0")
    if bound is not None and not 0 <= bound[0] < bound[1]:
        raise ValueError(f"bound={tuple(bound)}: 0 <= start < end is needed, in seconds")
    first, last = frame_range(clip, bound)
    if fps is not None:
        num_segments = max(1, round((last - first + 1) / clip.fps * fps))
    elif num_segments is None:
        num_segments = clip.frames if clip.is_list else DEFAULT_FRAMES
    if num_segments > last - first:
        return np.arange(first, last + 1)
    return get_index(bound, clip.fps, clip.frames - 1, num_segments=num_segments)
