"""Boxes in answers: parsed from text, never evaluated.

In: an answer. Out: `Box`es in pixels of the picture. Models write `<ref>name</ref><box>[[x1, y1, x2, y2], ...]</box>`
in thousandths of the picture; decoding without special tokens leaves `name[[x1, y1, x2, y2]]`. Draws nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"\s*(\d{1,4}(?:\.\d+)?)\s*"
_FOUR = rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
_BOXES = rf"\[\s*{_FOUR}(?:\s*,\s*{_FOUR})*\s*\]|{_FOUR}"
_GROUP = re.compile(rf"(?:<ref>(?P<ref>[^<]*)</ref>\s*)?(?:<box>\s*)?(?P<boxes>{_BOXES})")
_BOX = re.compile(_FOUR)
_NAME_ENDS = "[]<>\n,.;:!?，。；：！？"  # characters that no bare name has
SCALE = 1000  # what coordinates are fractions of


@dataclass(frozen=True)
class Box:
    """A region of a picture: left, top, right, bottom in pixels, and what the answer calls it ('' if nothing)."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


def parse_boxes(text: str, size: tuple[int, int]) -> list[Box]:
    """All boxes of an answer, in order.

    Args:
        text: an answer, with or without the `<ref>` and `<box>` marks.
        size: width and height of the original picture, in pixels.
    Returns:
        Boxes whose corners lie in the picture; what is malformed, outside 0..1000 or empty is left out.
    Raises:
        ValueError: size is not of a picture.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels has no boxes")
    found, before = [], 0
    for group in _GROUP.finditer(text):
        label = group["ref"]
        if label is None:
            label = _bare_name(text, before, group.start())
        before = group.end()
        for match in _BOX.finditer(group["boxes"]):
            left, top, right, bottom = (float(number) / SCALE for number in match.groups())
            if left < right <= 1 and top < bottom <= 1:
                found.append(Box(label.strip(), left * width, top * height, right * width, bottom * height))
    return found


def _bare_name(text: str, start: int, end: int) -> str:
    """The name without marks between the box that ends at `start` and the one at `end`, perhaps on the line before."""
    end -= text.endswith("\n", start, end)
    return text[max(start, *(1 + text.rfind(mark, start, end) for mark in _NAME_ENDS)) : end]
