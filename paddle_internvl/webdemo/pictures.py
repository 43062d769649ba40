"""Pictures as the page shows them: small, in the page itself, as figures of HTML.

In: PIL images. Out: PIL images, data URLs, HTML. The page's pictures are in the page, so no file is made of
a visitor's picture. Knows no conversation.
"""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

SMALL = 320  # pixels, long side of what is shown of an upload


def small(image: Image.Image, side: int = SMALL) -> Image.Image:
    """A copy whose long side has at most `side` pixels, and whose short one has at least one."""
    width, height = image.size
    scale = min(1.0, side / max(width, height))
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))))


def data_url(image: Image.Image) -> str:
    """The picture as a JPEG in a URL."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def figure(url: str, caption: str, alt: str) -> str:
    """A picture with a caption, as HTML. The caption and alt are plain text."""
    return (
        f'<figure><img src="{html.escape(url)}" alt="{html.escape(alt)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def figures(each: list[str]) -> str:
    """Figures side by side, as many as fit beside each other."""
    return f'<div class="figures">{"".join(each)}</div>' if each else ""
