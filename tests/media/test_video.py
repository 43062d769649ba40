"""Frames of clips: the cards' index formula, and clips from every source."""

import numpy as np
import pytest
from PIL import Image

from paddle_internvl import get_index, load_video
from paddle_internvl.media import video


def frames(count=10, side=64):
    """Frame k is gray with level 20 * k."""
    return [Image.new("RGB", (side, side), (20 * k,) * 3) for k in range(count)]


def levels(source, **options):
    with video.open_source(source) as clip:
        return [round(np.asarray(frame).mean() / 20) for frame in clip.read(list(range(clip.frames)), **options)]


def by_the_card(bound, fps, max_frame, num_segments):
    """The formula in exact fractions of seconds, with numpy's rounding of halves."""
    start, end = bound or (-100000, 100000)
    first, last = max(0, round(start * fps)), min(round(end * fps), max_frame)
    part = (last - first) / num_segments
    return [int(first + part / 2 + np.round(part * k)) for k in range(num_segments)]


@pytest.mark.parametrize("bound", [None, (0, 1), (0.5, 2.25), (1, 1)])
@pytest.mark.parametrize(("fps", "last", "segments"), [(25.0, 99, 8), (29.97, 299, 32), (10.0, 3, 8), (1.0, 0, 4)])
def test_get_index(bound, fps, last, segments):
    assert get_index(bound, fps, last, num_segments=segments).tolist() == by_the_card(bound, fps, last, segments)


def test_get_index_by_hand():
    assert get_index(None, 10.0, 79, num_segments=8).tolist() == [4, 14, 24, 34, 44, 53, 63, 73]
    assert get_index((1, 3), 10.0, 79, num_segments=4).tolist() == [12, 17, 22, 27]


def test_list_folder_and_gif(tmp_path):
    for k, frame in enumerate(frames()):
        frame.save(tmp_path / f"{k:03d}.png")
    gif = tmp_path.parent / f"{tmp_path.name}.gif"
    first, *rest = frames()
    first.save(gif, save_all=True, append_images=rest, duration=100)
    for source in (frames(), tmp_path, gif, gif.read_bytes()):
        assert levels(source) == list(range(10))
    with video.open_source(gif) as clip:
        assert clip.fps == 10


def test_load_video():
    pixels, counts = load_video(frames(), num_segments=4, input_size=56)
    assert pixels.shape == [4, 3, 56, 56] and counts == [1, 1, 1, 1]
    pixels, counts = load_video([Image.new("RGB", (112, 56))] * 3, num_segments=2, input_size=56, max_num=4)
    assert counts == [3, 3] and pixels.shape[0] == 6


def test_nothing_to_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such video"):
        load_video(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="holds no pictures"):
        load_video(tmp_path)
