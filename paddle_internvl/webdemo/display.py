"""Display of a conversation and of a question's token count: messages for Gradio's chat, and HTML.

In: rounds, attachments, grids, a language. Out: plain values and `gr.HTML`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import gradio as gr

from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.tile_drawing import draw_grid
from paddle_internvl.webdemo.attention import overlays_html
from paddle_internvl.webdemo.costs import PromptCost
from paddle_internvl.webdemo.error_texts import error_text
from paddle_internvl.webdemo.escaping import escape_html
from paddle_internvl.webdemo.pictures import data_url, figure, figures, strip
from paddle_internvl.webdemo.session import AnswerTiming, Round
from paddle_internvl.webdemo.texts import text
from paddle_internvl.webdemo.uploads import Attachment


def messages(rounds: Sequence[Round], language: str) -> list[dict]:
    """Messages of Gradio's chat. The n-th user message that is text is the n-th round's question."""
    out = []
    for each in rounds:
        if each.attachments:
            out.append({"role": "user", "content": gr.HTML(_thumbnails(each.attachments, language))})
        out.append({"role": "user", "content": escape_html(each.question)})
        if each.thoughts:
            folded = {
                "title": text("thoughts", language),
                "status": "done" if each.answer or each.ending else "pending",
            }
            out.append({"role": "assistant", "content": escape_html(each.thoughts.strip()), "metadata": folded})
        if each.answer:
            out.append({"role": "assistant", "content": escape_html(each.answer)})
        if each.drawn:
            out.append({"role": "assistant", "content": gr.HTML(_drawn(each, language))})
        if each.overlays:
            out.append({"role": "assistant", "content": gr.HTML(overlays_html(each.overlays, language))})
        out += [{"role": "assistant", "content": gr.HTML(note)} for note in _notes(each, language)]
    return out


def round_of(rounds: Sequence[Round], index: int) -> int:
    """The number of the round that a message belongs to.

    Args:
        rounds: of the conversation.
        index: of the message in `messages`.
    Raises:
        ValueError: there is no such message.
    """
    position = 0
    for number, each in enumerate(rounds):
        position += len(messages([each], "en"))
        if 0 <= index < position:
            return number
    raise ValueError(f"there is no message {index}")


def _thumbnails(attachments: Sequence[Attachment], language: str) -> str:
    pictures = [figure(each.urls[0], each.name, each.name) for each in attachments if each.kind == "image"]
    strips = [_strip(each, each.name, language) for each in attachments if each.kind == "video"]
    return figures(pictures) + "".join(strips)


def _drawn(each: Round, language: str) -> str:
    caption = text("boxes" if each.drawn_on == 1 else "boxes_last", language, count=each.drawn_on)
    return figures([figure(each.drawn, caption, caption)])


def _notes(each: Round, language: str) -> list[str]:
    notes = []
    if each.error is not None:
        notes.append(error(each.error, language))
    if each.ending is not None and each.timing.first is not None:
        notes.append(f'<p class="note timing">{html.escape(_timing(each.timing, language))}</p>')
    name = {"length": "cut", "stopped": "stopped"}.get(each.ending)
    return notes + ([f'<p class="note">({html.escape(text(name, language))})</p>'] if name else [])


def _timing(timing: AnswerTiming, language: str) -> str:
    line = text("timing", language, tokens=timing.tokens, first=f"{timing.first:.2f}")
    return line if timing.per_second is None else f"{line} · {_speed('speed', timing.per_second, language)}"


def _speed(name: str, per_second: float, language: str) -> str:
    return text(name, language, speed=f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}")


def problem(message: str) -> str:
    """The HTML of an error message, which is plain text."""
    return f'<p class="problem" role="alert">{html.escape(message)}</p>'


def error(message: str, language: str) -> str:
    """The HTML of an English error message of a question, in the language of the page."""
    return problem(f"{text('error', language)}: {error_text(message, language)}")


def model_strip(name: str, facts: Mapping, speed: float | None, language: str) -> str:
    """The model in one line as HTML.

    Args:
        name: of the model.
        facts: see `serve.model_facts`, and 'max_model_len'; a server may lack some.
        speed: tokens a second of the last answer; None: there is none.
        language: of the page.
    """
    count, length = facts.get("parameters"), facts.get("max_model_len")
    unit, divisor = ("B", 1e9) if count and count >= 1e9 else ("M", 1e6)
    parts = (
        name,
        count and text("parameters", language, count=f"{count / divisor:.3g} {unit}"),
        " + ".join(filter(None, (facts.get("dtype"), facts.get("quantization")))),
        facts["device"],
        length and text("context", language, length=f"{length:,}"),
        speed and _speed("last_speed", speed, language),
    )
    return " · ".join(f"<span>{html.escape(part)}</span>" for part in parts if part)


def preview(attachments: Sequence[Attachment], cost: PromptCost | None, length: int | None, language: str) -> str:
    """Preview of a question as HTML: every picture under its tile grid, frames in a strip, and the token count.

    Args:
        attachments: of the question.
        cost: of its prompt; None: the server does not count.
        length: most tokens of prompt and answer; None: not known.
        language: of the page.
    """
    if cost is None:
        return _thumbnails(attachments, language)
    media, tile_tokens = list(zip(attachments, cost.grids)), cost.tile_tokens
    pictures = [_under_grid(each, grids[0], tile_tokens, language) for each, grids in media if each.kind == "image"]
    strips = [
        _strip(each, f"{each.name} · {text('tokens', language, tokens=len(grids) * tile_tokens)}", language)
        for each, grids in media
        if each.kind == "video"
    ]
    total = text("total", language, total=cost.total, length="?" if length is None else length, visual=cost.visual)
    return (
        figures(pictures)
        + "".join(strips)
        + ("" if media else f'<p class="note">{html.escape(text("nothing", language))}</p>')
        + f'<p class="total">{html.escape(total)}</p>'
        + ("" if length is None or cost.total < length else problem(text("overflow", language)))
    )


def _strip(clip: Attachment, label: str, language: str) -> str:
    return strip(clip.urls, frame_captions(len(clip.urls), language), clip.name, label)


def frame_captions(count: int, language: str) -> list[str]:
    """Captions of a clip's frames."""
    return [text("frame", language, number=number) for number in range(1, count + 1)]


def _under_grid(picture: Attachment, grid: TileGrid | None, tile_tokens: int, language: str) -> str:
    (width, height), (image,) = picture.sizes[0], picture.previews
    if grid is None:
        return figure(picture.urls[0], f"{picture.name} · {width} × {height}", picture.name)
    name = "tile" if grid.tiles == 1 else "grid_thumbnail" if grid.thumbnail else "grid"
    shape = {"columns": grid.columns, "rows": grid.rows}
    tokens = text("tokens", language, tokens=grid.tiles * tile_tokens)
    caption = f"{picture.name} · {width} × {height} · {text(name, language, **shape)} · {tokens}"
    return figure(data_url(draw_grid(image, grid)), caption, text("picture_alt", language, name=picture.name, **shape))
