"""Progress of a filter run: a SQLite file beside the outputs, from which an interrupted run continues.

In: OUT, the settings and the data sets of a run. Out: for each data set how much of the input is done, how long each
output file is, and the counts so far. Outputs reach the disk before the progress does, and what they have beyond it is
cut off at the restart, so that a run that was killed at any time ends with the output of an uninterrupted one.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_FILE = ".filter.sqlite"
_CACHE = "-65536"  # KiB of SQLite's page cache


@dataclass
class Progress:
    """Progress of one data set.

    Attributes:
        line: number of the next line, from 1.
        offset: of the next line in the input.
        sizes: bytes of each output file.
        counts: `lines`, the samples of each output, and RULE/ACTION of the findings.
        done: whether the data set is finished.
    """

    line: int = 1
    offset: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    done: bool = False


class FilterState:
    """The progress file of a run.

    Args:
        out: folder of the outputs.
        identity: settings and inputs of the run, JSON.
    Raises:
        ValueError: OUT holds an interrupted run with other settings or inputs.
    """

    def __init__(self, out: Path, identity: dict):
        out.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(out / _FILE)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA cache_size={_CACHE}")
        self.connection.execute("CREATE TABLE IF NOT EXISTS progress (name TEXT PRIMARY KEY, value TEXT)")
        known = self._read("")
        if known not in (None, identity):
            raise ValueError(f"{out} holds an interrupted run with other settings or inputs; --overwrite begins anew")
        self._write("", identity)
        self.connection.commit()

    def load(self, name: str) -> Progress:
        """Progress of a data set."""
        value = self._read(f"/{name}")
        return Progress() if value is None else Progress(**{**value, "counts": Counter(value["counts"])})

    def save(self, name: str, progress: Progress) -> None:
        """Commit the progress of a data set, and what was written to `connection` since the last time."""
        self._write(f"/{name}", vars(progress))
        self.connection.commit()

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        self.connection.close()

    def _read(self, name: str) -> dict | None:
        row = self.connection.execute("SELECT value FROM progress WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _write(self, name: str, value: dict) -> None:
        self.connection.execute("INSERT OR REPLACE INTO progress VALUES (?, ?)", (name, json.dumps(value)))


def remove_state(out: Path) -> None:
    """Delete the progress file of a folder."""
    for ending in ("", "-wal", "-shm"):
        (out / f"{_FILE}{ending}").unlink(missing_ok=True)
