"""Frames of a clip as the toolkits sample them: their indices, pictures and subtitles."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from paddle_internvl.evaluation.item import Clip
from paddle_internvl.evaluation.subtitles import frame_subtitles, read_cues
from paddle_internvl.media.images import open_image
from paddle_internvl.media.video import open_source
from paddle_internvl.preprocess import video
from paddle_internvl.preprocess.frames import get_index


def read_frames(clip: Clip, count: int, spread: str) -> list[Image.Image]:
    """RGB frames of a clip.

    Args:
        clip: of an item.
        count: number of frames; frames repeat where the clip is shorter.
        spread: "middle": the middle of equal intervals of the part asked about, as upstream and MVBench; "inner": equal
            steps between the clip's ends, as VLMEvalKit's other video benchmarks.
    Raises:
        FileNotFoundError, ValueError, ImportError: see `media.video.open_source`.
    """
    with _opened(clip) as opened:
        return opened.read(_indices(opened, clip, count, spread))


def subtitles_of(clip: Clip, count: int, spread: str) -> str:
    """Subtitles at the frames of a clip, a line each; "" where the clip has no file of subtitles."""
    if clip.subtitles is None or not clip.subtitles.is_file():
        return ""
    with _opened(clip) as opened:
        return frame_subtitles(read_cues(clip.subtitles), _indices(opened, clip, count, spread), opened.fps)


@contextmanager
def _opened(clip: Clip) -> Iterator[video.Clip]:
    if clip.frames_per_second is None:
        with open_source(clip.path) as opened:
            yield opened
        return
    if not clip.path.is_dir():
        raise FileNotFoundError(f"no such folder of frames: {clip.path}")
    count = sum(1 for _ in clip.path.iterdir())

    def read(indices: Sequence[int]) -> list[Image.Image]:
        return [open_image(clip.path / f"{index:05d}.jpg") for index in indices]

    yield video.Clip(count, clip.frames_per_second, read)


def _indices(opened: video.Clip, clip: Clip, count: int, spread: str) -> list[int]:
    if spread == "inner":
        step = opened.frames / (count + 1)
        return [int(i * step) for i in range(1, count + 1)]
    bound = None if clip.start is None or clip.end is None else (clip.start, clip.end)
    numbered = clip.frames_per_second is not None  # frames of a folder are counted from 1
    last = opened.frames if numbered else opened.frames - 1
    return get_index(bound, opened.fps, last, first_idx=int(numbered), num_segments=count).tolist()
