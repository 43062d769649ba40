"""Frame sampling, tile limits and the tile budget."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.media.opening import open_media
from paddle_internvl.preprocess.frames import frame_indices, get_index
from paddle_internvl.preprocess.tile_limits import TileControl, plan_grids
from paddle_internvl.preprocess.video import Clip


def clip(frames, fps=10.0, is_list=False):
    return Clip(frames, fps, lambda indices: [], is_list)


@pytest.mark.parametrize(
    ("source", "how", "indices"),
    [
        (clip(100), {"num_segments": 4}, get_index(None, 10.0, 99, num_segments=4).tolist()),
        (clip(100), {}, get_index(None, 10.0, 99, num_segments=8).tolist()),
        (clip(5), {}, [0, 1, 2, 3, 4]),  # shorter than asked: all of it, none twice
        (clip(5), {"num_segments": 5}, [0, 1, 2, 3, 4]),
        (clip(12, is_list=True), {}, list(range(12))),
        (clip(100), {"fps": 0.5}, get_index(None, 10.0, 99, num_segments=5).tolist()),  # ten seconds
        (clip(100), {"fps": 0.01}, [49]),
        (clip(100), {"bound": (2, 3), "fps": 2}, [22, 27]),
        (clip(100), {"bound": (9.8, 50)}, [98, 99]),
        (clip(1), {"num_segments": 32}, [0]),
    ],
)
def test_frames(source, how, indices):
    assert frame_indices(source, **how).tolist() == indices


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"num_segments": 2, "fps": 1}, "num_segments=2 and fps=1 exclude each other"),
        ({"num_segments": 0}, "must be above 0"),
        ({"fps": -1}, "must be above 0"),
        ({"bound": (3, 3)}, "0 <= start < end is needed"),
        ({"bound": (11, 12)}, "begins behind the end of the clip at 10.00 s"),
    ],
)
def test_invalid_frames(how, message):
    with pytest.raises(ValueError, match=message):
        frame_indices(clip(100), **how)


@given(st.integers(1, 200), st.floats(0.5, 60), st.integers(1, 40), st.floats(0, 5), st.floats(0.1, 9))
def test_frames_rise_and_stay_inside(frames, fps, segments, start, length):
    for how in ({"num_segments": segments}, {"fps": fps / 3}, {"bound": (start, start + length)}):
        try:
            indices = frame_indices(clip(frames, fps), **how)
        except ValueError as error:
            assert "begins behind the end" in str(error)
            continue
        assert len(indices) and indices[0] >= 0 and indices[-1] < frames and (np.diff(indices) > 0).all()


def test_limits_override_each_other():
    control = TileControl(side=448, min_num=4, max_num=12, use_thumbnail=True)
    assert (control.override({"max_num": 2}).min_num, control.override({"max_num": 6}).min_num) == (2, 4)
    config = SimpleNamespace(
        dynamic_image_size=True, tile_side=448, min_dynamic_patch=1, max_dynamic_patch=12, use_thumbnail=True
    )  # fmt: skip
    assert TileControl.from_config(config, max_num=6, min_num=None) == TileControl(448, 1, 6, True)
    config.dynamic_image_size = False
    assert TileControl.from_config(config, total=3) == TileControl(448, 1, 1, True, 3)


def test_limits_that_contradict_each_other():
    picture = (Image.new("RGB", (90, 30)), {"min_num": 9, "max_num": 2})
    with pytest.raises(ValueError, match="min_num=9, max_num=2: 1 <= min_num <= max_num is needed"):
        plan_grids([picture], TileControl(448, 1, 12, True))


def test_a_budget_lowers_min_num():
    pictures = [(Image.new("RGB", (900, 900)), {"min_num": 4, "max_num": 4})] * 2
    assert [grid.tiles for grid in plan_grids(pictures, TileControl(448, 1, 12, False, total=3))] == [2, 1]


def test_media_of_both_kinds():
    picture = Image.new("RGB", (90, 30), "red")
    assert open_media("image", picture, {"max_dynamic_patch": 3})[1] == {"max_num": 3}
    frames, options = open_media("video", [picture] * 4, {"num_frames": 2, "max_num": 3})
    assert len(frames) == 2 and options == {"max_num": 3}
    assert open_media("video", [picture], {})[1] == {"max_num": 1}
    with pytest.raises(ValueError, match="image option 'fps' is not known"):
        open_media("image", picture, {"fps": 1})


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=5),
    st.integers(1, 12), st.integers(0, 30), st.booleans(),
)  # fmt: skip
def test_a_budget_holds_and_wastes_nothing_needed(sizes, max_num, spare, thumbnail):
    pictures = [(Image.new("RGB", size), {}) for size in sizes]
    control = TileControl(side=8, min_num=1, max_num=max_num, use_thumbnail=thumbnail)
    free = [grid.tiles for grid in plan_grids(pictures, control)]
    total = len(sizes) + spare
    shared = [grid.tiles for grid in plan_grids(pictures, TileControl(8, 1, max_num, thumbnail, total))]
    assert sum(shared) <= total and min(shared) >= 1
    assert shared == free or sum(free) > total
