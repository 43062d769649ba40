"""Decisions of a manual review: a JSONL file that reviewers append to, and `curate filter --decisions` reads.

In: samples of `flagged.jsonl`, decisions. Out: lines `{"sample", "decision", "reviewer", "time"}`; the last line of a
reviewer about a sample counts. A review may be killed while it writes: a last line without a line end does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from convert.destination import sync
from paddle_internvl.curation.jsonl import as_line, read_lines
from paddle_internvl.training.mixture import DataError

ACCEPT, REJECT, UNDO = DECISIONS = ("accept", "reject", "undo")
CONFLICT = "conflict"
_MAX_NAME = 100  # characters of a reviewer's name


def sample_id(flagged: dict) -> str:
    """The id of a sample: DATASET:LINE:DIGEST, whose digest keeps a decision from another sample on the same line.

    Args:
        flagged: object of a line of `flagged.jsonl`: `dataset`, `line`, and `item` or `text`.
    """
    content = json.dumps(flagged["item"] if "item" in flagged else flagged["text"], ensure_ascii=False, sort_keys=True)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{flagged['dataset']}:{flagged['line']}:{digest[:12]}"


@dataclass(frozen=True)
class Decision:
    """A decision of a reviewer about a sample.

    Attributes:
        sample: id, see `sample_id`.
        decision: 'accept', 'reject', or 'undo' of the reviewer's earlier one.
        reviewer: name.
        time: UTC, ISO 8601.
    Raises:
        ValueError: a value of another type or range.
    """

    sample: str
    decision: str
    reviewer: str
    time: str

    def __post_init__(self):
        if not all(isinstance(value, str) and value for value in vars(self).values()):
            raise ValueError("a decision has sample, decision, reviewer and time, all texts")
        if self.decision not in DECISIONS:
            raise ValueError(f"decision {self.decision!r}; use {', '.join(DECISIONS)}")
        if not self.reviewer.isprintable() or not self.reviewer.strip() or len(self.reviewer) > _MAX_NAME:
            raise ValueError(f"a reviewer's name has 1 to {_MAX_NAME} printable characters")

    @classmethod
    def dated(cls, sample: str, decision: str, reviewer: str) -> Decision:
        """A decision with the present time."""
        return cls(sample, decision, reviewer, datetime.now(timezone.utc).isoformat(timespec="seconds"))


class Decisions:
    """The decisions that stand, of all reviewers.

    Attributes:
        by_sample: sample -> reviewer -> 'accept' or 'reject'.
        by_reviewer: reviewer -> samples, the last decided at the end.
    """

    def __init__(self):
        self.by_sample: dict[str, dict[str, str]] = {}
        self.by_reviewer: dict[str, dict[str, None]] = {}

    def add(self, decision: Decision) -> None:
        """Add a decision in place of the reviewer's earlier one; an undo removes the earlier one."""
        reviewers = self.by_sample.setdefault(decision.sample, {})
        samples = self.by_reviewer.setdefault(decision.reviewer, {})
        reviewers.pop(decision.reviewer, None)
        samples.pop(decision.sample, None)
        if decision.decision != UNDO:
            reviewers[decision.reviewer] = decision.decision
            samples[decision.sample] = None
        if not reviewers:
            del self.by_sample[decision.sample]

    def verdict(self, sample: str) -> str | None:
        """'accept', 'reject', 'conflict' if the reviewers differ, or None if nobody has decided."""
        decisions = set(self.by_sample.get(sample, {}).values())
        return CONFLICT if len(decisions) > 1 else decisions.pop() if decisions else None


def read_decisions(file: Path) -> Decisions:
    """Read the decisions of a file.

    Raises:
        DataError: a line is no decision; names the file and the line.
        FileNotFoundError: there is no such file.
    """
    decisions = Decisions()
    for line in read_lines(file):
        if not line.complete:
            break
        try:
            if line.error:
                raise ValueError(line.error)
            decisions.add(Decision(**{name: line.item.get(name) for name in Decision.__dataclass_fields__}))
        except ValueError as error:
            raise DataError(f"{file}, line {line.number}: {error}") from None
    return decisions


class DecisionFile:
    """A file of decisions, open for appending by one process.

    Args:
        file: made if it does not exist. A last line that was cut off is removed.
    Attributes:
        decisions: see `read_decisions`.
    Raises:
        ValueError: another process has it open.
        DataError: see `read_decisions`.
    """

    def __init__(self, file: Path):
        import fcntl  # not on Windows

        self._stream = open(file, "a+b", buffering=0)  # noqa: SIM115 (`close` closes it)
        try:
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{file} is open in another review; use that one's page, or end it") from None
            self._stream.truncate(file.read_bytes().rfind(b"\n") + 1)
            sync(file.absolute().parent)
            self.decisions = read_decisions(file)
        except BaseException:
            self._stream.close()
            raise

    def append(self, decision: Decision) -> None:
        """Write a decision; when this returns, the decision is on disk.

        Raises:
            OSError: the disk is full or broken; the file and `decisions` are as before.
        """
        data, size = as_line(asdict(decision)).encode(), os.fstat(self._stream.fileno()).st_size
        try:
            if self._stream.write(data) < len(data):
                raise OSError("the disk is full")
            os.fsync(self._stream.fileno())
        except OSError:
            self._stream.truncate(size)
            raise
        self.decisions.add(decision)

    def close(self) -> None:
        """Close the file, so that another process can open it."""
        self._stream.close()
