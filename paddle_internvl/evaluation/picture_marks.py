"""LMDeploy's marks of pictures, `<IMAGE_TOKEN>`, in messages for servers that read them and for servers that don't.

A mark is the exact place of a picture in its text. For a server that would take it for text, pictures are parts of the
message between the parts of the text; what is written around them is the server's choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paddle_internvl.prompt.special_tokens import IMAGE_TOKEN

OWNERS = ("paddle_internvl", "lmdeploy")  # `owned_by` of the models of servers that read marks


def has_marks(messages: Sequence[Mapping]) -> bool:
    """Whether a message with pictures has marks."""
    return any(_is_marked(message["content"]) for message in messages)


def without_marks(messages: Sequence[Mapping]) -> list[Mapping]:
    """Messages whose pictures are parts in the places of their marks.

    Args:
        messages: OpenAI-style; the last part of a message with pictures is its text.
    """
    return [
        {**message, "content": _in_place(message["content"])} if _is_marked(message["content"]) else message
        for message in messages
    ]


def _is_marked(content: object) -> bool:
    return isinstance(content, list) and IMAGE_TOKEN in content[-1].get("text", "")


def _in_place(content: list[dict]) -> list[dict]:
    *pictures, text = content
    first, *rest = text["text"].split(IMAGE_TOKEN)
    parts = [first, *(part for picture, after in zip(pictures, rest) for part in (picture, after.removeprefix("\n")))]
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts if part != ""]
