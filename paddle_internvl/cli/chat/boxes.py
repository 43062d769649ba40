"""Boxes of an answer, drawn into its picture: for a file, or for a terminal as half blocks.

In: a picture and an answer. Out: a picture with boxes; a rich renderable of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS, _LINES = 64, 20  # most of a terminal that a picture takes
_HALF_BLOCK = "▀"  # the upper pixel is its colour, the lower one its background


def with_boxes(picture: Image, answer: str) -> Image | None:
    """A copy of a picture with the boxes of an answer; None if the answer holds none."""
    from paddle_internvl.preprocess.drawing import draw_boxes
    from paddle_internvl.prompt.grounding import parse_boxes

    boxes = parse_boxes(answer, picture.size)
    return draw_boxes(picture, boxes) if boxes else None


def require_boxes(picture: Image, answer: str) -> Image:
    """`with_boxes`.

    Raises:
        ValueError: the answer holds no box.
    """
    drawn = with_boxes(picture, answer)
    if drawn is None:
        raise ValueError(f"the answer holds no box to draw: {answer!r}")
    return drawn


def half_blocks(picture: Image, columns: int, lines: int):
    """A picture as lines of half blocks, two pixels in each: a rich renderable.

    Args:
        picture: RGB PIL image.
        columns: of the terminal.
        lines: of the terminal.
    """
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    scale = min(min(columns, _COLUMNS) / picture.width, 2 * min(lines, _LINES) / picture.height)
    width, rows = max(1, round(picture.width * scale)), max(1, round(picture.height * scale / 2))
    pixels = picture.convert("RGB").resize((width, 2 * rows)).load()
    segments = []
    for row in range(rows):
        for column in range(width):
            upper, lower = (Color.from_rgb(*pixels[column, 2 * row + half]) for half in (0, 1))
            segments.append(Segment(_HALF_BLOCK, Style(color=upper, bgcolor=lower)))
        segments.append(Segment.line())
    return Segments(segments)
