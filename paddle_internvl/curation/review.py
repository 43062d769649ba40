"""Review queue: the flagged samples of a filter that nobody has decided yet, for several reviewers at a time.

In: `flagged.jsonl`, decisions of reviewers. Out: samples to show, the file of decisions, progress counts.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.decisions import UNDO, Decision, DecisionFile, sample_id
from paddle_internvl.curation.jsonl import Line, parse_line, read_lines
from paddle_internvl.curation.sample_texts import picture_names
from paddle_internvl.training.mixture import DataError


@dataclass(frozen=True)
class FlaggedSample:
    """A sample as a reviewer sees it.

    Attributes:
        id: see `sample_id`.
        dataset: name.
        line: number in the data set's file.
        reasons: findings: `rule`, `action`, `score`, `detail`.
        texts: (writer or field, text) in order.
        images: files of pictures.
        videos: files or folders of clips; one or none.
    """

    id: str
    dataset: str
    line: int
    reasons: tuple[dict, ...]
    texts: tuple[tuple[str, str], ...]
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()


class ReviewQueue:
    """The queue of undecided samples. Thread-safe.

    A sample that is shown to one reviewer is offered to another one only if no other sample is undecided.

    Args:
        flagged: `flagged.jsonl` of a filter.
        decisions: file that decisions are appended to; None: beside `flagged`, `flagged.decisions.jsonl`.
        root: folder of the media; None: that of `flagged`.
    Attributes:
        foreign: decisions of the file about samples that `flagged` does not have.
    Raises:
        DataError: a line that is no flagged sample or no decision; names the file and the line.
        ValueError: another process has the decisions open.
    """

    def __init__(self, flagged: Path, decisions: Path | None = None, root: Path | None = None):
        self._flagged, self._root, self._lock = flagged, root or flagged.parent, threading.RLock()
        self._lines: dict[str, tuple[int, int]] = {}  # sample -> offset, line number
        for line in read_lines(flagged):
            sample = _id(line, flagged)
            if sample in self._lines:
                raise DataError(f"{flagged}, line {line.number}: {sample} is there twice")
            self._lines[sample] = line.offset, line.number
        self._order, self._places = list(self._lines), {sample: place for place, sample in enumerate(self._lines)}
        self._file = DecisionFile(decisions or flagged.with_suffix(".decisions.jsonl"))
        self._stream = open(flagged, "rb")  # noqa: SIM115 (`close` closes it)
        self._decisions = self._file.decisions
        decided = [sample for sample in self._decisions.by_sample if sample in self._lines]
        self.foreign = len(self._decisions.by_sample) - len(decided)
        self._verdicts = Counter(map(self._decisions.verdict, decided))
        self._shown: dict[str, str] = {}  # reviewer -> sample

    def progress(self) -> dict[str, int]:
        """Counts of samples: `total`, `decided`, and of these `accept`, `reject` and `conflict`."""
        with self._lock:
            verdicts = {name: self._verdicts[name] for name in ("accept", "reject", "conflict")}
            return {"total": len(self._order), "decided": sum(verdicts.values()), **verdicts}

    def next(self, reviewer: str, after: str | None = None) -> str | None:
        """The next undecided sample for a reviewer; None: all are decided.

        Args:
            reviewer: name.
            after: sample behind which to search; the search goes on at the beginning. None: search from the beginning.
        """
        with self._lock:
            start = self._places[after] + 1 if after in self._places else 0
            shown = {sample for name, sample in self._shown.items() if name != reviewer}
            taken = None
            for place in range(start, start + len(self._order)):
                sample = self._order[place % len(self._order)]
                if sample in self._decisions.by_sample:
                    continue
                if sample not in shown:
                    return self._show(reviewer, sample)
                taken = taken or sample
            return self._show(reviewer, taken)

    def decide(self, sample: str, decision: str, reviewer: str) -> None:
        """Store a decision on disk. Nothing happens if the reviewer has decided the sample already.

        Raises:
            KeyError: no such sample.
            ValueError: not a decision, or not a name.
            OSError: the decision could not be written.
        """
        with self._lock:
            self._lines[sample]
            entry = Decision.dated(sample, decision, reviewer)
            if reviewer not in self._decisions.by_sample.get(sample, {}):
                self._append(entry)

    def undo(self, reviewer: str) -> str | None:
        """Take the last decision of a reviewer back. Returns its sample; None: the reviewer has no decision."""
        with self._lock:
            made = reversed(self._decisions.by_reviewer.get(reviewer, {}))
            sample = next((sample for sample in made if sample in self._lines), None)
            if sample is not None:
                self._append(Decision.dated(sample, UNDO, reviewer))
                self._show(reviewer, sample)
            return sample

    def sample(self, sample: str) -> FlaggedSample:
        """Read a sample.

        Raises:
            KeyError: no such sample.
            DataError: the file was changed since it was opened.
        """
        offset, number = self._lines[sample]
        with self._lock:
            self._stream.seek(offset)
            line = parse_line(self._stream.readline(), number, offset)
        if _id(line, self._flagged) != sample:
            raise DataError(f"{self._flagged}, line {number}: changed since the review began; begin it again")
        item = line.item.get("item", {"text": line.item.get("text")})
        media = _media(item)
        return FlaggedSample(
            id=sample,
            dataset=line.item["dataset"],
            line=line.item["line"],
            reasons=tuple(line.item["reasons"]),
            texts=tuple(_texts({name: value for name, value in item.items() if name not in media})),
            images=tuple(self._root / name for name in media.get("image", ())),
            videos=tuple(self._root / name for name in media.get("video", ())),
        )

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        self._file.close()

    def _show(self, reviewer: str, sample: str | None) -> str | None:
        self._shown.pop(reviewer, None)
        if sample is not None:
            self._shown[reviewer] = sample
        return sample

    def _append(self, decision: Decision) -> None:
        before = self._decisions.verdict(decision.sample)
        self._file.append(decision)
        after = self._decisions.verdict(decision.sample)
        self._verdicts.subtract([before])
        self._verdicts.update([after])


def _id(line: Line, flagged: Path) -> str:
    try:
        if line.error:
            raise ValueError(line.error)
        if not isinstance(line.item.get("reasons"), list):
            raise ValueError("no line of a filter's flagged.jsonl: it has no reasons")
        return sample_id(line.item)
    except KeyError as error:
        raise DataError(f"{flagged}, line {line.number}: no line of a filter's flagged.jsonl: no {error}") from None
    except ValueError as error:
        raise DataError(f"{flagged}, line {line.number}: {error}") from None


def _media(item: dict) -> dict[str, list[str]]:
    """Paths of the fields `image` and `video`. A field of another form is none of media, and is shown as text."""
    video = item.get("video")
    media = {"video": [video]} if isinstance(video, str) and video else {}
    with contextlib.suppress(ValueError):
        if images := picture_names(item):
            media["image"] = images
    return media


def _texts(item: dict) -> Iterator[tuple[str, str]]:
    """Turns of the conversation, and the other fields with their names."""
    for name, value in item.items():
        turns = value if name == "conversations" and isinstance(value, list) else []
        if turns and all(isinstance(turn, dict) and {"from", "value"} <= turn.keys() for turn in turns):
            yield from ((_text(turn["from"]), _text(turn["value"])) for turn in turns)
        else:
            yield name, _text(value)


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
