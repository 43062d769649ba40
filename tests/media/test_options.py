"""Tile and frame options: aliases, defaults and checks."""

import numpy as np
import pytest

from paddle_internvl.media.options import limit_tiles, parse_options


@pytest.mark.parametrize(
    ("kind", "options", "tiles", "frames"),
    [
        ("image", {}, {}, {}),
        ("image", {"detail": "low"}, {"max_num": 6}, {}),
        ("image", {"detail": "low", "max_num": 3}, {"max_num": 3}, {}),
        ("image", {"detail": "auto", "min_dynamic_patch": 2, "max_num": None}, {"min_num": 2}, {}),
        ("image", {"max_num": np.int64(4), "use_thumbnail": False}, {"max_num": 4, "use_thumbnail": False}, {}),
        ("video", {}, {"max_num": 1}, {}),
        ("video", {"detail": "low", "num_frames": 4}, {"max_num": 6}, {"num_segments": 4}),
        ("video", {"fps": np.float32(2), "bound": (0, 1.5)}, {"max_num": 1}, {"fps": 2, "bound": (0, 1.5)}),
    ],
)
def test_options(kind, options, tiles, frames):
    parsed = parse_options(kind, options)
    assert (parsed.tiles, parsed.frames) == (tiles, frames)
    assert parse_options(kind, {**parsed.tiles, **parsed.frames}) == parsed


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("image", {"fps": 1}, "image option 'fps' is not known; known: min_num, max_num, use_thumbnail, detail"),
        ("video", {"frames": 1}, "video option 'frames' is not known; known: .*, num_segments, fps, bound"),
        ("image", {"max_num": 0}, "max_num=0 must be a whole number above 0"),
        ("image", {"detail": "max"}, "detail='max' must be one of auto, low, medium, high"),
        ("video", {"bound": (2, 1)}, r"bound=\(2, 1\) must be \[start, end\] in seconds"),
    ],
)
def test_invalid_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        parse_options(kind, options)


def test_limit_lowers_both_numbers_of_tiles():
    assert limit_tiles({"min_num": 9, "max_num": 12, "use_thumbnail": True}, 4) == {
        "min_num": 4, "max_num": 4, "use_thumbnail": True,
    }  # fmt: skip
