"""A conversation as a file: JSON that the server and `chat` take, or Markdown.

In: the rounds of a visitor. Out: text; pictures as data URLs of the uploaded files, clips as their frames.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Sequence

from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.webdemo.error_texts import error_text
from paddle_internvl.webdemo.pictures import data_url
from paddle_internvl.webdemo.session import Round
from paddle_internvl.webdemo.texts import text
from paddle_internvl.webdemo.uploads import Attachment


def to_json(rounds: Sequence[Round], model: str) -> str:
    """The answered rounds as the body of a request to `/v1/chat/completions`.

    Args:
        rounds: of a conversation.
        model: its name.
    """
    messages = []
    for each in rounds:
        if each.answer is not None:
            pictures = [part for attachment in each.attachments for part in _parts(attachment)]
            messages.append({"role": "user", "content": [*pictures, {"type": "text", "text": each.question}]})
            thoughts = {"reasoning_content": each.thoughts} if each.thoughts else {}
            messages.append({"role": "assistant", "content": each.answer, **thoughts})
    return json.dumps({"model": model, "messages": messages}, ensure_ascii=False, indent=1) + "\n"


def _parts(attachment: Attachment) -> list[dict]:
    if attachment.kind == "image":
        media_type = mimetypes.guess_type(attachment.name)[0] or "application/octet-stream"
        urls = [encode_data_url(attachment.source, media_type)]
    else:
        urls = map(data_url, attachment.source)
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def to_markdown(rounds: Sequence[Round], model: str, language: str) -> str:
    """The rounds as Markdown with thumbnails.

    Args:
        rounds: of a conversation.
        model: its name.
        language: of the headings.
    """
    parts = [f"# {model}"]
    for each in rounds:
        parts.append(f"## {text('question', language)}\n\n{each.question}")
        parts += [f"![{attachment.name}]({url})" for attachment in each.attachments for url in attachment.urls]
        if each.thoughts:
            summary = f"<summary>{text('thoughts', language)}</summary>"
            parts.append(f"<details>{summary}\n\n{each.thoughts.strip()}\n\n</details>")
        if each.answer:
            parts.append(f"## {text('answer', language)}\n\n{each.answer}")
        if each.drawn:
            parts.append(f"![{text('boxes', language)}]({each.drawn})")
        if each.error is not None:
            parts.append(f"> {text('error', language)}: {error_text(each.error, language)}")
    return "\n\n".join(parts) + "\n"
