"""Uploads become attachments as the model would see them; hostile ones an error that names the file and no folder."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.opening import open_media
from paddle_internvl.preprocess.tile_limits import TileControl, cut_tiles, plan_grids
from paddle_internvl.webdemo.uploads import LIMITS, Receiver
from tests.webdemo.conftest import ASSETS


def read(method: str, *arguments, **limits):
    return asyncio.run(
        getattr(Receiver(448, replace(LIMITS, **limits)), method)(*map(str, arguments[:1]), *arguments[1:])
    )


def test_picture():
    picture = read("picture", ASSETS / "wide.png")
    assert (picture.kind, picture.name, picture.sizes) == ("image", "wide.png", ((1344, 448),))
    assert picture.source == (ASSETS / "wide.png").read_bytes() and picture.previews[0].size == (320, 107)
    assert picture.pixels == 1344 * 448 and picture.urls[0].startswith("data:image/jpeg")


def test_clip_frames_are_the_tiles_the_model_would_see():
    clip = read("clip", ASSETS / "clip.gif", 4)
    frames, options = open_media("video", ASSETS / "clip.gif", {"num_segments": 4})
    control = TileControl(448, 1, 6, True)
    tiles = []
    for pictures in (clip.source, frames):
        pairs = [(picture, options) for picture in pictures]
        tiles.append(np.stack(cut_tiles(pairs, plan_grids(pairs, control), 448)))
    assert clip.kind == "video" and len(clip.previews) == 4
    np.testing.assert_array_equal(*tiles)


def test_large_frames_are_the_tiles_too(tmp_path):
    rng = np.random.default_rng(5)
    frames = [Image.fromarray(rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:], duration=100)
    clip = read("clip", tmp_path / "c.png", 2)
    kept, _ = open_media("video", tmp_path / "c.png", {"num_segments": 2})
    np.testing.assert_array_equal(np.asarray(clip.source[1]), np.asarray(kept[1].resize((448, 448))))


def broken(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("method, more", [("picture", ()), ("clip", (4,))])
def test_invalid_media(tmp_path, method, more):
    with pytest.raises(MediaError, match="notes.txt") as caught:
        read(method, broken(tmp_path, "notes.txt", b"#EXTM3U\nfile:///etc/passwd"), *more)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("method, more", [("picture", ()), ("clip", (4,))])
def test_removed_uploads(tmp_path, method, more):
    with pytest.raises(MediaError, match="x.png: the upload is gone"):
        read(method, tmp_path / "x.png", *more)


def test_truncated_picture(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(MediaError, match="t.jpg: the picture is broken"):
        read("picture", broken(tmp_path, "t.jpg", (tmp_path / "a.jpg").read_bytes()[:4000]))


def test_limits(tmp_path):
    for limits, message in (({"max_image_pixels": 100}, "1344x448"), ({"max_image_bytes": 10}, "larger than")):
        with pytest.raises(MediaError, match=message):
            read("picture", ASSETS / "wide.png", **limits)
    with pytest.raises(MediaError, match="larger than"):
        read("clip", ASSETS / "clip.gif", 4, max_video_bytes=10)
    for frames in (0, -1, 33):
        with pytest.raises(MediaError, match="1 to 32"):
            read("clip", ASSETS / "clip.gif", frames)


def test_together():
    picture = read("picture", ASSETS / "wide.png")
    receiver = Receiver(448, replace(LIMITS, max_images=2, max_total_pixels=1344 * 448 * 2))
    receiver.check_together([picture] * 2)
    with pytest.raises(MediaError, match="3 pictures; 2 are taken"):
        receiver.check_together([picture] * 3)
    with pytest.raises(MediaError, match="pixels"):
        Receiver(448, replace(LIMITS, max_total_pixels=1000)).check_together([picture])
