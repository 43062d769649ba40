"""Thumbnails of pictures as data URLs and HTML figures, so that no file is made of a visitor's picture.

In: PIL images. Out: PIL images, data URLs, HTML.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

from PIL import Image

from paddle_internvl.media.data_urls import encode_data_url

SMALL = 320  # pixels, long side of an upload's thumbnail


def small(image: Image.Image, side: int = SMALL) -> Image.Image:
    """A copy whose long side has at most `side` pixels, and whose short one has at least one."""
    width, height = image.size
    scale = min(1.0, side / max(width, height))
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))))


def data_url(image: Image.Image) -> str:
    """The picture as a JPEG in a URL."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return encode_data_url(file.getvalue(), "image/jpeg")


def figure(url: str, caption: str, alt: str) -> str:
    """A picture with a caption, as HTML. The caption and alt are plain text."""
    return (
        f'<figure><img src="{html.escape(url)}" alt="{html.escape(alt)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def figures(items: list[str]) -> str:
    """Figures side by side, wrapped to the width of the page."""
    return f'<div class="figures">{"".join(items)}</div>' if items else ""


def strip(urls: Sequence[str], captions: Sequence[str], name: str, label: str) -> str:
    """A clip's frames in a row that scrolls by keyboard.

    Args:
        urls: of the frames.
        captions: of the frames.
        name: of the clip.
        label: line above the row.
    """
    frames = [figure(url, caption, f"{name} {caption}") for url, caption in zip(urls, captions)]
    label = html.escape(label)
    return (
        f'<p class="note">{label}</p>'
        f'<div class="strip" role="group" tabindex="0" aria-label="{label}">{figures(frames)}</div>'
    )
