"""Drawing of bounding boxes and their labels into a picture.

In: a PIL image and boxes (left, top, right, bottom in pixels, and a label). Out: a new PIL image.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "C:/Windows/Fonts", "~/.fonts")
_CJK_FONTS = (  # file names of fonts with Chinese, Japanese and Korean characters, best first
    "NotoSansCJK*", "SourceHanSans*", "wqy-*", "DroidSansFallback*", "PingFang*", "msyh*", "simhei*", "simsun*",
)  # fmt: skip


@lru_cache(maxsize=1)
def cjk_font() -> Path | None:
    """A font file of this machine with CJK characters, or None."""
    folders = [folder for name in _FONT_FOLDERS if (folder := Path(name).expanduser()).is_dir()]
    for pattern in _CJK_FONTS:
        for folder in folders:
            for file in sorted(folder.rglob(pattern)):
                if file.suffix.lower() in (".ttf", ".ttc", ".otf"):
                    return file
    return None


def draw_boxes(image: Image.Image, boxes: Iterable, font: str | Path | None = None) -> Image.Image:
    """A copy of a picture with boxes and their labels drawn in.

    Args:
        image: PIL image.
        boxes: see `prompt.grounding.parse_boxes`; boxes of one label share a colour.
        font: font file; None: Pillow's own, or a CJK font of this machine for labels beyond Latin-1.
    Returns:
        A new PIL image in mode RGB, of the same size.
    Raises:
        ValueError: a label beyond Latin-1 and no CJK font; names the way out.
    """
    boxes, picture = list(boxes), image.convert("RGB")
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 300))
    letters = _font("".join(box.label for box in boxes), max(12, stroke * 7), font)
    labels = list(dict.fromkeys(box.label for box in boxes))
    for box in boxes:
        color = _COLORS[labels.index(box.label) % len(_COLORS)]
        draw.rectangle((box.left, box.top, box.right, box.bottom), outline=color, width=stroke)
        if box.label:
            left, top, right, bottom = draw.textbbox((0, 0), box.label, font=letters)
            x = min(max(box.left, 0), max(picture.width - (right - left) - 4, 0))
            y = box.top - (bottom - top) - 4
            y = y if y >= 0 else box.top + stroke
            draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=color)
            draw.text((x + 2 - left, y + 2 - top), box.label, fill="white", font=letters)
    return picture


def _font(text: str, size: int, file: str | Path | None):
    if file is None and any(ord(character) > 255 for character in text):
        file = cjk_font()
        if file is None:
            raise ValueError("no font on this machine holds these labels; install fonts-noto-cjk, or give font=FILE")
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)
