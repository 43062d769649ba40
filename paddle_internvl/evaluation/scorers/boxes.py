"""Bounding boxes in answers: what VLMEvalKit and upstream's script read as a box, and its IoU with a reference."""

import re
from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

# VLMEvalKit's pattern without its repeated choices, which take quadratic time on long runs of digits.
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_GAP = r"(?:\s*,\s*|\s+)"
_LIST = re.compile(rf"\[\s*{_GAP.join([f'({_NUMBER})'] * 4)}\s*\]")
_NUMBERS = re.compile(_NUMBER)
_FRACTION, _PER_MILLE = 1.5, 1000  # largest coordinates of boxes in fractions and in per mille of the picture
_SMALLEST_PER_MILLE = 4  # upstream: the smallest sum of coordinates in per mille


def four_numbers(text: str) -> Box | None:
    """The first list of four numbers of a text, or its first four numbers; None where there are fewer."""
    found = _LIST.search(text)
    numbers = found.groups() if found else [number.group() for _, number in zip(range(4), _NUMBERS.finditer(text))]
    return tuple(float(number) for number in numbers) if len(numbers) == 4 else None


def are_fractions(box: Box) -> bool:
    """Whether all coordinates are so small that they are fractions of the picture."""
    return max(map(abs, box)) <= _FRACTION


def in_pixels(box: Box, width: float, height: float) -> Box | None:
    """Box in pixels inside a picture, by VLMEvalKit's rule: fractions, per mille or pixels by the largest coordinate.

    Args:
        box: coordinates of an answer.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    if min(width, height) <= 0:
        return None
    xs, ys = box[0::2], box[1::2]
    if max(map(abs, box)) <= _PER_MILLE:
        divisor = 1 if are_fractions(box) else _PER_MILLE
        xs, ys = [x / divisor * width for x in xs], [y / divisor * height for y in ys]
    (x1, x2), (y1, y2) = (
        sorted(min(max(value, 0), end) for value in side) for side, end in ((xs, width), (ys, height))
    )
    return x1, y1, x2, y2


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes; 0 where they do not meet."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [max(x2 - x1, 0) * max(y2 - y1, 0) for x1, y1, x2, y2 in (first, second)]
    return width * height / (sum(areas) - width * height)


def first_brackets(text: str) -> Box | None:
    """Upstream's box: the parts of the first `[.., .., .., ..]` on one line; None where one of them is no number.

    Upstream's pattern is `\\[*\\[(.*?),(.*?),(.*?),(.*?)\\]\\]*`; here its first match is found in linear time.
    """
    for line in text.split("\n"):
        _, _, rest = line.partition("[")
        parts = rest.lstrip("[").split(",", 3)
        if len(parts) == 4 and "]" in parts[3]:
            parts[3] = parts[3].partition("]")[0]
            try:
                return tuple(float(part) for part in parts)
            except ValueError:
                return None
    return None


def upstream_iou(box: Box, reference: Sequence[float], width: float, height: float) -> float:
    """IoU as upstream's script has it, in float32: per mille if the coordinates' sum is 4 or more, else fractions."""
    with np.errstate(all="ignore"):  # infinite coordinates and empty boxes: no IoU
        found, target = np.float32(box), np.float32(reference)
        if found.sum(dtype=np.float32) >= _SMALLEST_PER_MILLE:
            found = found / np.float32(1000)
        found = found * np.float32([width, height, width, height])
        sides = np.maximum(np.minimum(found[2:], target[2:]) - np.maximum(found[:2], target[:2]), np.float32(0))
        intersection = sides[0] * sides[1]
        areas = [(area[2] - area[0]) * (area[3] - area[1]) for area in (found, target)]
        return float(intersection / (areas[0] + areas[1] - intersection))
