"""JSONL files that a training run appends to: metrics, skipped samples, stored log-probabilities.

In: objects. Out: a line for each. A run may be killed while it writes: a last line without a line end does not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


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
