"""Options of pictures and clips in a stranger's request: checked, and lowered to the server's ceilings.

In: a part's options as JSON has them. Out: the same for `preprocess.media`, or a `MediaError`. Only names of options
pass: any other could take the place of the part's own fields.
"""

from __future__ import annotations

from collections.abc import Mapping

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.opening import DETAIL_TILES, FRAME_OPTIONS, OPTION_ALIASES, TILE_OPTIONS

_LARGEST = 10**6  # frames per second, seconds


def checked_options(kind: str, options: Mapping, limits: MediaLimits) -> dict:
    """Options that cost no more than the limits allow.

    A limit of tiles above the ceiling is lowered to it: it says "at most". A number of frames above it is refused.

    Args:
        kind: 'image' or 'video'.
    Raises:
        MediaError: an option that is not known, or of the wrong type or range; names it.
    """
    options = {OPTION_ALIASES.get(name, name): value for name, value in options.items() if value is not None}
    known = TILE_OPTIONS if kind == "image" else TILE_OPTIONS + FRAME_OPTIONS
    for name, value in options.items():
        if name not in known:
            raise MediaError(f"an option of the {kind} is not known; known: {', '.join(known)}")
        wanted, holds = _CHECKS[name]
        if not holds(value):
            raise MediaError(f"{name} must be {wanted}")
    if options.get("num_segments", 1) > limits.max_frames:
        raise MediaError(f"num_segments is too large; at most {limits.max_frames} frames are taken")
    if options.get("detail", "auto") != "auto":
        options.setdefault("max_num", DETAIL_TILES[options["detail"]])
    return cap_tiles(options, limits.max_tiles_per_picture)


def cap_tiles(options: Mapping, most: int) -> dict:
    """Options whose numbers of tiles are at most `most`."""
    return {name: min(value, most) if name in ("min_num", "max_num") else value for name, value in options.items()}


def _is_count(value) -> bool:
    return type(value) is int and value >= 1


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST  # not so: NaN


def _is_bound(value) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 <= value[0] < value[1]
    )


_COUNT = "a whole number above 0", _is_count
_CHECKS = {
    "min_num": _COUNT,
    "max_num": _COUNT,
    "num_segments": _COUNT,
    "fps": (f"a number above 0, at most {_LARGEST}", lambda value: _is_number(value) and value > 0),
    "bound": (f"[start, end] in seconds, 0 <= start < end <= {_LARGEST}", _is_bound),
    "use_thumbnail": ("true or false", lambda value: type(value) is bool),
    "detail": (
        f"one of auto, {', '.join(DETAIL_TILES)}",
        lambda value: isinstance(value, str) and value in ("auto", *DETAIL_TILES),
    ),
}
