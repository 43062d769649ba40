"""The two files of `batch`: rows of questions in, one row of answer for each out, in the same order.

In: lines of JSON. Out: conversations, and lines of JSON. An answer's line number is its question's, so that what a run
has left unfinished is what OUT lacks. Knows no model.

IN     {"messages": [...], "id"?, "generation"?} or {"prompt": text, "images": [...], "id"?, "generation"?}
OUT    {"id", "text", "finish_reason", "usage"}, with "alternatives" and "logprobs" if asked for, or {"id", "error"}
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from paddle_internvl.engine.response import Response
from paddle_internvl.media.urls import is_url

_FIELDS = {"messages": ("id", "messages", "generation"), "prompt": ("id", "prompt", "images", "generation")}
_INSIDE = ("url", "data")  # where a part's field holds its source, if it is an object


def read(file: Path) -> list[str]:
    """The rows of IN, as text; empty lines are none."""
    with file.open(encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]


def name_of(line: str, number: int):
    """The id of a row: its own, or its number."""
    try:
        row = json.loads(line)
    except ValueError:
        return number
    return row.get("id", number) if isinstance(row, dict) else number


def parse(line: str, folder: Path) -> tuple[list[dict], dict]:
    """A row's messages, and its own generation settings.

    Args:
        folder: that paths of media are relative to.
    Raises:
        ValueError: no such row; says what is wrong.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"the row is no JSON: {error}") from None
    kind = next((kind for kind in _FIELDS if isinstance(row, dict) and kind in row), None)
    if kind is None:
        raise ValueError("a row is an object with 'messages', or with 'prompt' and 'images'")
    for name in row:
        if name not in _FIELDS[kind]:
            raise ValueError(f"field {name!r} is not known beside {kind!r}; known: {', '.join(_FIELDS[kind])}")
    generation = row.get("generation") or {}
    if not isinstance(generation, dict):
        raise ValueError(f"'generation' is an object, not {generation!r}")
    if kind == "messages":
        return _rooted(row["messages"], folder), generation
    text, images = row["prompt"], row.get("images") or []
    if not isinstance(text, str) or not isinstance(images, list):
        raise ValueError("'prompt' is a text and 'images' a list")
    pictures = [{"type": "image_url", "image_url": picture} for picture in images]
    return _rooted([{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}], folder), generation


def _rooted(messages, folder: Path):
    """Messages whose paths start from a folder. What is no message stays: `parse_messages` says what is wrong."""
    if not isinstance(messages, list):
        return messages
    return [
        {**message, "content": [_rooted_part(part, folder) for part in message["content"]]}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _rooted_part(part, folder: Path):
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind == "text" or kind not in part:
        return part
    source = part[kind]
    if isinstance(source, dict):
        inside = {name: _rooted_source(source[name], folder) for name in _INSIDE if name in source}
        return {**part, kind: {**source, **inside}}
    return {**part, kind: _rooted_source(source, folder)}


def _rooted_source(source, folder: Path):
    if isinstance(source, list):  # the frames of a clip
        return [_rooted_source(frame, folder) for frame in source]
    return str(folder / source) if isinstance(source, str) and not is_url(source) else source


def answer_line(name, outcome: Response | Exception) -> str:
    """The line of OUT about a row.

    Args:
        name: the row's id. outcome: its answer, or why there is none.
    """
    if isinstance(outcome, Exception):
        return _json({"id": name, "error": " ".join(str(outcome).split()) or type(outcome).__name__})
    usage = {"prompt_tokens": outcome.input_token_len, "completion_tokens": outcome.generate_token_len}
    row = {"id": name, "text": outcome.text, "finish_reason": outcome.finish_reason, "usage": usage}
    if outcome.alternatives:
        row["alternatives"] = [other.text for other in outcome.alternatives]
    if outcome.logprobs is not None:
        row["logprobs"] = outcome.logprobs
    return _json(row)


def _json(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def failed(line: str) -> bool:
    """Whether a line of OUT tells of an error."""
    return "error" in json.loads(line)


@contextmanager
def appending(file: Path, lines: Sequence[str]) -> Iterator[tuple[BinaryIO, int, int]]:
    """OUT, open at the end of what is whole in it; a last line that was torn off is cut away.

    Args:
        lines: of IN.
    Returns:
        The file, how many rows are done, and how many of these have failed.
    Raises:
        ValueError: OUT is no answer to IN, or another run is writing it.
    """
    with file.open("a+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{file} is being written by another run") from None
        out.seek(0)
        done = whole = failures = 0
        for line in out:
            if not line.endswith(b"\n"):
                break
            failures += _checked(line, file, done, lines)
            done, whole = done + 1, whole + len(line)
        out.truncate(whole)
        out.seek(whole)
        yield out, done, failures


def _checked(line: bytes, file: Path, number: int, lines: Sequence[str]) -> bool:
    """Whether the row failed."""
    where = f"{file}, line {number + 1}"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not ({"text", "error"} & row.keys()):
        raise ValueError(f"{where} is no answer of this command; name another file")
    if number >= len(lines):
        raise ValueError(f"{file} has more answers than there are questions ({len(lines)}); name another file")
    if row.get("id") != name_of(lines[number], number):
        raise ValueError(
            f"{where} answers {row.get('id')!r}, not {name_of(lines[number], number)!r}; name another file"
        )
    return "error" in row
