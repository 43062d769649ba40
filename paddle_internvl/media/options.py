"""Tile and frame options of a picture or clip: names, aliases and value checks, in one table.

In: the options of a message part. Out: `MediaOptions`, under the argument names of `preprocess`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real

DETAIL_TILES = {"low": 6, "medium": 12, "high": 24}  # LMDeploy's meaning of OpenAI's `detail`; 'auto': the config's
_ALIASES = {"min_dynamic_patch": "min_num", "max_dynamic_patch": "max_num", "num_frames": "num_segments"}
_MAX_NUMBER = 10**9  # of frames per second and seconds: keeps products with a clip's rate finite


def _is_count(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER  # False for NaN


def _is_interval(value) -> bool:
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    return is_pair and all(map(_is_number, value)) and 0 <= value[0] < value[1]


_Check = tuple[str, Callable[[object], bool]]  # what the value must be, and whether it is
_COUNT: _Check = ("a whole number above 0", _is_count)
_TILE_OPTIONS: dict[str, _Check] = {
    "min_num": _COUNT,
    "max_num": _COUNT,
    "use_thumbnail": ("true or false", lambda value: isinstance(value, bool)),
    "detail": (
        f"one of auto, {', '.join(DETAIL_TILES)}",
        lambda value: isinstance(value, str) and value in ("auto", *DETAIL_TILES),
    ),
}
_FRAME_OPTIONS: dict[str, _Check] = {
    "num_segments": _COUNT,
    "fps": (f"a number above 0, at most {_MAX_NUMBER}", lambda value: _is_number(value) and value > 0),
    "bound": (f"[start, end] in seconds, 0 <= start < end <= {_MAX_NUMBER}", _is_interval),
}
_OPTIONS = {"image": _TILE_OPTIONS, "video": {**_TILE_OPTIONS, **_FRAME_OPTIONS}}
_DEFAULTS = {"image": {}, "video": {"max_num": 1}}  # upstream shows a frame as one tile


@dataclass(frozen=True)
class MediaOptions:
    """Checked options of one picture or clip.

    Attributes:
        tiles: of min_num, max_num, use_thumbnail those that are given: fields of `preprocess.tile_limits.TileControl`.
        frames: of num_segments, fps, bound those that are given: arguments of `preprocess.frames.frame_indices`.
    """

    tiles: dict
    frames: dict


def parse_options(kind: str, options: Mapping) -> MediaOptions:
    """Check the tile and frame options of a picture or clip.

    Args:
        kind: 'image' or 'video'.
        options: by name or alias; None counts as not given.
    Returns:
        The options under their own names; `detail` has become `max_num` where that is not given. A frame is one tile
        by default.
    Raises:
        ValueError: an unknown option, or a value of the wrong type or range; names the option.
    """
    options = {_ALIASES.get(name, name): value for name, value in options.items() if value is not None}
    checks = _OPTIONS[kind]
    for name, value in options.items():
        if name not in checks:
            raise ValueError(f"{kind} option {name!r} is not known; known: {', '.join(checks)}")
        expected, is_valid = checks[name]
        if not is_valid(value):
            raise ValueError(f"{name}={reprlib.repr(value)} must be {expected}")
    detail = options.pop("detail", "auto")
    if detail != "auto":
        options.setdefault("max_num", DETAIL_TILES[detail])
    options = {**_DEFAULTS[kind], **options}
    return MediaOptions(
        tiles={name: value for name, value in options.items() if name in _TILE_OPTIONS},
        frames={name: value for name, value in options.items() if name in _FRAME_OPTIONS},
    )


def limit_tiles(tiles: Mapping, limit: int) -> dict:
    """Tile options whose min_num and max_num are lowered to a limit."""
    return {name: min(value, limit) if name in ("min_num", "max_num") else value for name, value in tiles.items()}
