"""JSONL files of data curation: objects with their places.

In: paths. Out: `Line`s in file order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.training.mixture import DataError


@dataclass(frozen=True)
class Line:
    """A line of a JSONL file.

    Attributes:
        number: from 1.
        offset: of its first byte in the file.
        size: bytes, with the line end.
        text: the line without its end.
        item: the object; None for a bad line.
        error: why the line is bad; None for a good line.
        complete: whether the line has a line end.
    """

    number: int
    offset: int
    size: int
    text: str
    item: dict | None
    error: str | None = None
    complete: bool = True


def read_lines(file: Path, start: int = 0, number: int = 1) -> Iterator[Line]:
    """Lines of a JSONL file that are not blank, one at a time.

    Args:
        file: to be read.
        start: offset of the first line that is read.
        number: of that line.
    """
    with open(file, "rb") as stream:
        stream.seek(start)
        offset = start
        for number, data in enumerate(stream, number):  # noqa: B020
            if data.strip():
                yield parse_line(data, number, offset)
            offset += len(data)


def parse_line(data: bytes, number: int, offset: int) -> Line:
    """The `Line` of the bytes of a line."""
    text = data.decode("utf-8-sig" if offset == 0 else "utf-8", errors="replace").rstrip("\r\n")
    item, error = None, None
    try:
        data.decode("utf-8")
        item = json.loads(text)
    except UnicodeDecodeError as fault:
        error = f"not UTF-8: {fault.reason}"
    except (ValueError, RecursionError) as fault:
        error = f"not valid JSON: {fault}"
    if error is None and not isinstance(item, dict):
        item, error = None, "not an object"
    return Line(number, offset, len(data), text, item, error, data.endswith(b"\n"))


def input_files(source: Path) -> list[Path]:
    """The JSONL files of a folder in the order of their names, or one file.

    Raises:
        DataError: there is none.
    """
    files = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise DataError(f"{source}: no such file, and no folder of .jsonl files")
    return files


def as_line(item: dict) -> str:
    """JSON of an object and a line end."""
    return json.dumps(item, ensure_ascii=False) + "\n"
