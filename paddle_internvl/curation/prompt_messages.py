"""OpenAI-style messages of a sample's prompt: the turns before an answer, with pictures or a clip, or without them.

In: the object of a JSONL line. Out: messages for a `Pipeline`, or for an endpoint, with media as data URLs.
"""

from __future__ import annotations

import functools
import mimetypes
from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.curation.sample_texts import picture_names
from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER, IMAGE_TOKEN

CLIP_MARK = "<video>"
_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_MEDIA_TYPES = {"image": "image/png", "video": "video/mp4"}  # of files whose ending names none
_CACHED_FILES = 8  # questions about one picture are near each other


def prompt_turns(item: dict) -> list[tuple[str, str]]:
    """Role ('system', 'user', 'assistant') and text of each turn of a prompt.

    Args:
        item: with `question`, or `conversations` that end with a question (from: human) in its place.
    Raises:
        ValueError: neither.
    """
    turns = item.get("conversations")
    if turns is None:
        turns = [{"from": "human", "value": item.get("question")}]
    valid = isinstance(turns, list) and all(
        isinstance(turn, dict) and turn.get("from") in _ROLES and isinstance(turn.get("value"), str) for turn in turns
    )
    if not valid or not turns or turns[-1]["from"] != "human":
        raise ValueError("question (text), or conversations that end with a question (from: human), are needed")
    return [(_ROLES[turn["from"]], turn["value"]) for turn in turns]


def messages_without_media(turns: Sequence[tuple[str, str]]) -> list[dict]:
    """Messages of turns, without the marks of pictures and clips."""
    return [{"role": role, "content": _without_marks(text) if role == "user" else text} for role, text in turns]


def messages_with_media(turns: Sequence[tuple[str, str]], item: dict, root: Path) -> list[dict]:
    """Messages of turns with their media, for a `Pipeline`.

    Pictures stand where their marks are; without marks, before the first question. So does a clip.

    Args:
        turns: role and text of each turn.
        item: with `image` (a path or a list of paths) or `video`, or neither.
        root: folder of the media.
    Raises:
        ValueError: numbers of marks and pictures differ.
    """
    pictures = [{"type": "image", "image": str(root / name)} for name in picture_names(item)]
    clips = [{"type": "video", "video": str(root / item["video"])}] if item.get("video") else []
    marks = [text.count(IMAGE_PLACEHOLDER) if role == "user" and pictures else 0 for role, text in turns]
    first = next(k for k, (role, _) in enumerate(turns) if role == "user")
    if pictures and not any(marks):
        marks[first] = len(pictures)
    if sum(marks) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures but {sum(marks)} {IMAGE_PLACEHOLDER} marks")
    messages, remaining = [], iter(pictures)
    for k, (role, text) in enumerate(turns):
        media = [next(remaining) for _ in range(marks[k])] + (clips if k == first else [])
        if clips and role == "user":
            text = _without_marks(text)
        if media and not clips:
            text = text.replace(IMAGE_PLACEHOLDER, IMAGE_TOKEN)
        messages.append({"role": role, "content": [*media, {"type": "text", "text": text}] if media else text})
    return messages


def endpoint_messages(messages: Sequence[dict]) -> list[dict]:
    """Messages of `messages_with_media` for an endpoint: media as data URLs."""
    return [
        {**message, "content": _endpoint_parts(message["content"])} if isinstance(message["content"], list) else message
        for message in messages
    ]


def _endpoint_parts(content: list[dict]) -> list[dict]:
    *media, text = content
    urls = [{"type": f"{part['type']}_url", f"{part['type']}_url": {"url": _data_url(part)}} for part in media]
    return [*urls, text]


def _data_url(part: dict) -> str:
    return _file_url(part["type"], part[part["type"]])


@functools.lru_cache(maxsize=_CACHED_FILES)
def _file_url(kind: str, file: str) -> str:
    media_type = mimetypes.guess_type(file)[0] or _MEDIA_TYPES[kind]
    return encode_data_url(Path(file).read_bytes(), media_type)


def _without_marks(text: str) -> str:
    return text.replace(IMAGE_PLACEHOLDER, "").replace(CLIP_MARK, "").strip()
