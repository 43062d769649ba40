"""Attention overlays of an answer: each picture of the conversation under its heat map and tile grid.

In: attachments, and the `AttentionMap` of each of their pictures. Out: data URLs, and HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.attention_map import AttentionMap, draw_attention
from paddle_internvl.preprocess.tile_drawing import draw_grid
from paddle_internvl.webdemo.pictures import data_url, figure, figures, small, strip
from paddle_internvl.webdemo.texts import text
from paddle_internvl.webdemo.uploads import Attachment

_SIDE, _FRAME_SIDE = 480, 160  # pixels, long side of a picture and of a clip's frame


@dataclass(frozen=True)
class AttentionOverlay:
    """Overlay of an attachment.

    Attributes:
        name: of the attachment.
        urls: data URLs of its pictures: one, or a clip's frames.
        shares: share of the answer's attention that each got, 0 to 1.
        thumbnail: data URL of the picture under the map of its thumbnail tile; None: there is none.
    """

    name: str
    urls: tuple[str, ...]
    shares: tuple[float, ...]
    thumbnail: str | None = None


def draw_overlays(attachments: Sequence[Attachment], maps: Sequence[AttentionMap]) -> list[AttentionOverlay]:
    """Overlays of attachments, in colours of one scale.

    Args:
        attachments: of the conversation, in the order of the prompt.
        maps: of their pictures.
    """
    left, highest = iter(maps), max(each.highest for each in maps)
    return [_overlay(attachment, left, highest) for attachment in attachments]


def _overlay(attachment: Attachment, maps: Iterator[AttentionMap], highest: float) -> AttentionOverlay:
    if attachment.kind == "video":
        shown = [(small(frame, _FRAME_SIDE), next(maps)) for frame in attachment.source]
        urls = tuple(data_url(draw_attention(frame, each.tiles, highest)) for frame, each in shown)
        return AttentionOverlay(attachment.name, urls, tuple(each.share for _, each in shown))
    picture, each = small(open_image(attachment.source), _SIDE), next(maps)
    url = data_url(draw_grid(draw_attention(picture, each.tiles, highest), each.grid))
    return AttentionOverlay(attachment.name, (url,), (each.share,), _thumbnail(picture, each.thumbnail, highest))


def _thumbnail(picture: Image.Image, cells: np.ndarray | None, highest: float) -> str | None:
    return None if cells is None else data_url(draw_attention(picture, cells, highest))


def overlays_html(overlays: Sequence[AttentionOverlay], language: str) -> str:
    """Overlays with their shares, as HTML."""
    pictures, strips = [], []
    for each in overlays:
        name, share = each.name, _percent(sum(each.shares))
        caption = text("attention_share", language, name=name, share=share)
        if len(each.urls) > 1:
            frames = [
                f"{text('frame', language, number=number)} · {_percent(frame)}"
                for number, frame in enumerate(each.shares, 1)
            ]
            strips.append(strip(each.urls, frames, name, caption))
            continue
        pictures.append(figure(each.urls[0], caption, caption))
        if each.thumbnail is not None:
            caption = text("attention_thumbnail", language, name=name)
            pictures.append(figure(each.thumbnail, caption, caption))
    note = f'<p class="note">{html.escape(text("attention_note", language))}</p>'
    return figures(pictures) + "".join(strips) + note


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
