"""JSONL files that a run appends to, and files that appear when they are complete.

In: objects. Out: a line for each. A run may be killed while it writes: a last line without a line end does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO


def read_objects(file: Path) -> list[dict]:
    """The objects of a file's whole lines; none if there is no file."""
    data = file.read_bytes() if file.is_file() else b""
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def append_objects(file: Path, objects: Iterable[dict]) -> None:
    """Append a line for each object; a last line that was cut off is removed. Missing folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+b") as stream:
        end = stream.tell()
        stream.seek(max(end - 1, 0))
        if stream.read(1) not in (b"", b"\n"):
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects).encode())


@contextlib.contextmanager
def complete_file(file: Path) -> Iterator[TextIO]:
    """A text file that appears, under its name, when the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.part")
    with open(temporary, "w", encoding="utf-8") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
