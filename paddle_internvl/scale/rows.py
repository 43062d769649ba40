"""Files of batch inference: IN with a question per line, OUT with an answer per line, in the same order.

In: lines of JSON. Out: parsed conversations, and lines of JSON. An answer has the line number of its question, so that
a later run continues where OUT ends. OUT.settings.json has the model and settings that OUT was begun with; a run with
others moves both files aside and begins anew, so that OUT never mixes answers of two models or settings.

IN     {"messages": [...], "id"?, "generation"?} or {"prompt": text, "images": [...], "id"?, "generation"?}
       either with "tools", "tool_choice", "parallel_tool_calls"
OUT    {"id", "text", "finish_reason", "usage"}, with "reasoning_content", "tool_calls", "alternatives", "logprobs" if
       asked for;
       or {"id", "error"}
"""

from __future__ import annotations

import codecs
import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from convert.folder import read_json
from paddle_internvl.engine.response import Response
from paddle_internvl.media.urls import is_url
from paddle_internvl.prompt.messages import Dialogue, parse_messages
from paddle_internvl.prompt.tools import parse_tools

_log = logging.getLogger(__name__)
_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_FIELDS = {
    "messages": ("id", "messages", "generation", *_TOOLS),
    "prompt": ("id", "prompt", "images", "generation", *_TOOLS),
}


def read(file: Path) -> list[bytes]:
    """The rows of IN, without empty lines."""
    return [line.strip() for line in file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip()]


def name_of(line: bytes, number: int):
    """The id of a row; its number where it has none, or none that is a text or number."""
    try:
        return _id(_json_value(line), number)
    except ValueError:
        return number


def _id(row, number: int):
    name = row.get("id", number) if isinstance(row, dict) else number
    if not isinstance(name, (str, int, float, type(None))) or (isinstance(name, float) and not math.isfinite(name)):
        raise ValueError("'id' is a text or a finite number")
    return name


def _json_value(line: bytes):
    """The value of a line of JSON.

    Raises:
        ValueError: no JSON, no UTF-8, or nested too deeply.
    """
    try:
        return json.loads(line.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the row is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the row is no JSON: {error}") from None


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON")


def parse(line: bytes, folder: Path) -> tuple[Dialogue, dict]:
    """Parse a row of IN.

    Args:
        line: JSON in UTF-8.
        folder: that paths of media are relative to.
    Returns:
        The conversation, and the row's generation settings.
    Raises:
        ValueError: an invalid row; names the fault.
    """
    row = _json_value(line)
    _id(row, 0)
    kind = next((kind for kind in _FIELDS if isinstance(row, dict) and kind in row), None)
    if kind is None:
        raise ValueError("a row is an object with 'messages', or with 'prompt' and 'images'")
    for name in row:
        if name not in _FIELDS[kind]:
            raise ValueError(f"field {name!r} is not known beside {kind!r}; known: {', '.join(_FIELDS[kind])}")
    generation = row.get("generation") or {}
    if not isinstance(generation, dict):
        raise ValueError(f"'generation' is an object, not {generation!r}")
    tools = parse_tools(*map(row.get, _TOOLS))
    if kind == "messages":
        return _resolve_paths(replace(parse_messages(row["messages"]), tools=tools), folder), generation
    text, images = row["prompt"], row.get("images") or []
    if not isinstance(text, str) or not isinstance(images, list):
        raise ValueError("'prompt' is a text and 'images' a list")
    pictures = [{"type": "image_url", "image_url": picture} for picture in images]
    messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]
    return _resolve_paths(replace(parse_messages(messages), tools=tools), folder), generation


def _resolve_paths(dialogue: Dialogue, folder: Path) -> Dialogue:
    """The conversation with relative paths of media resolved against a folder."""
    media = [replace(medium, source=_resolve(medium.source, folder)) for medium in dialogue.media]
    return dialogue.substitute_media(media)


def _resolve(source, folder: Path):
    if isinstance(source, list):  # the frames of a clip
        return [_resolve(frame, folder) for frame in source]
    return str(folder / source) if isinstance(source, str) and not is_url(source) else source


def answer_line(name, outcome: Response | Exception) -> str:
    """The line of OUT for a row.

    Args:
        name: id of the row.
        outcome: its answer, or its error.
    """
    if isinstance(outcome, Exception):
        return _json({"id": name, "error": " ".join(str(outcome).split()) or type(outcome).__name__})
    usage = {"prompt_tokens": outcome.input_token_len, "completion_tokens": outcome.generate_token_len}
    row = {"id": name, "text": outcome.text, "finish_reason": outcome.finish_reason, "usage": usage}
    if outcome.reasoning is not None:
        row["reasoning_content"] = outcome.reasoning
    if outcome.tool_calls:
        row["tool_calls"] = [call.openai for call in outcome.tool_calls]
    if outcome.alternatives:
        row["alternatives"] = [other.text for other in outcome.alternatives]
        if any(other.tool_calls for other in outcome.alternatives):
            row["alternative_tool_calls"] = [
                [call.openai for call in other.tool_calls] for other in outcome.alternatives
            ]
    if outcome.logprobs is not None:
        row["logprobs"] = outcome.logprobs
    return _json(row)


def _json(row: dict) -> str:
    """A line of JSON in valid UTF-8: half a surrogate is written as its escape."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def failed(line: str) -> bool:
    """Whether a line of OUT holds an error."""
    return "error" in json.loads(line)


@contextmanager
def appending(file: Path, lines: Sequence[bytes], settings: Mapping) -> Iterator[tuple[BinaryIO, int, int]]:
    """Open OUT to append; an incomplete last line is cut off.

    An OUT of other settings is moved to the first free OUT.1, OUT.2, ..., its settings beside it, with a warning.

    Args:
        file: OUT.
        lines: of IN.
        settings: JSON values that the answers depend on; kept in OUT.settings.json.
    Returns:
        The file, the number of rows that are done, and of those that failed.
    Raises:
        ValueError: OUT does not belong to IN or has no settings beside it, or another run is writing it.
    """
    settings = json.loads(json.dumps(settings))
    with ExitStack() as stack:
        out = stack.enter_context(_locked(file))
        done, complete, failures = _count(out, file, lines)
        if done and (change := _change(file, settings)):
            aside = _move_aside(file)
            _log.warning("%s was begun with %s; it is now %s, and every row is answered anew", file, change, aside)
            out = stack.enter_context(_locked(file))
            done = complete = failures = 0
        if not done:
            _settings_file(file).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        out.truncate(complete)
        out.seek(complete)
        yield out, done, failures


@contextmanager
def _locked(file: Path) -> Iterator[BinaryIO]:
    """A file opened to read and append, by one process at a time."""
    import fcntl  # not on Windows

    with file.open("a+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{file} is being written by another run") from None
        yield out


def _count(out: BinaryIO, file: Path, lines: Sequence[bytes]) -> tuple[int, int, int]:
    """Complete lines of OUT, their bytes, and how many of them are errors."""
    out.seek(0)
    done = complete = failures = 0
    for line in out:
        if not line.endswith(b"\n"):
            break
        failures += _checked(line, file, done, lines)
        done, complete = done + 1, complete + len(line)
    return done, complete, failures


def _settings_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.settings.json")


def _change(file: Path, settings: Mapping) -> str | None:
    """The first setting that OUT was begun with and that is another now, in words; None: all are the same."""
    kept = _settings_file(file)
    if not kept.exists():
        raise ValueError(f"{file} has answers, but {kept.name} with their settings is missing; name another file")
    earlier = read_json(kept)
    for name in sorted(earlier.keys() | settings.keys()):
        if earlier.get(name) != settings.get(name):
            return f"{name}={earlier.get(name)!r}, not {settings.get(name)!r}"
    return None


def _move_aside(file: Path) -> Path:
    """Rename OUT and its settings to names that are free; returns OUT's."""
    names = (file.with_name(f"{file.name}.{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    _settings_file(file).rename(_settings_file(aside))
    return file.rename(aside)


def _checked(line: bytes, file: Path, number: int, lines: Sequence[bytes]) -> bool:
    """Check that a line of OUT belongs to its row of IN; returns whether the row failed."""
    place = f"{file}, line {number + 1}"
    try:
        row = _json_value(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not ({"text", "error"} & row.keys()):
        raise ValueError(f"{place} is no answer of this command; name another file")
    if number >= len(lines):
        raise ValueError(f"{file} has more answers than there are questions ({len(lines)}); name another file")
    if row.get("id") != name_of(lines[number], number):
        raise ValueError(
            f"{place} answers {row.get('id')!r}, not {name_of(lines[number], number)!r}; name another file"
        )
    return "error" in row
