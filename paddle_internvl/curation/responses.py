"""Responses of a JSONL file, checked: right, wrong or without a clear answer, by question.

In: a JSONL of responses. Out: `Responses`, without their texts, which are read again when a pair is written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from paddle_internvl.curation.answer_checks import is_correct
from paddle_internvl.curation.final_answers import (
    PROMPT_VERSIONS,
    FormatError,
    final_answer,
    with_reference_spelling,
)
from paddle_internvl.curation.jsonl import Line, read_lines
from paddle_internvl.curation.line_workers import map_lines
from paddle_internvl.training.mixture import DataError

_NEEDED = ("question", "answer", "response")
MEDIA = ("image", "video")


@dataclass(frozen=True)
class PairSettings:
    """Settings of `build_pairs`.

    Attributes:
        num_pairs_per_key: most pairs of a question and a kind.
        checks: names of `answer_checks.CHECKS`; None: by the name of the file, as upstream.
        answer_fix: spell right final answers of the formats 'en' and 'zh' as the ground truth.
        use_correctness_cache: take `is_correct` of the lines; nothing is parsed and the substring rule is off.
        max_lines: lines that are read; None: all.
        on_bad_line: 'error', or 'skip', which counts it.
        seed: of the choice of pairs; a choice depends on it, the kind and the question only.
        as_upstream: reproduce upstream, its faults included (docs/curation.md lists them).
        workers: processes of Ray that check answers; None: this process.
        ray_address: of a Ray cluster; None: this machine.
    """

    num_pairs_per_key: int = 15
    checks: tuple[str, ...] | None = None
    answer_fix: bool = False
    use_correctness_cache: bool = False
    max_lines: int | None = None
    on_bad_line: str = "error"
    seed: int = 0
    as_upstream: bool = False
    workers: int | None = None
    ray_address: str | None = None


class Response(NamedTuple):
    """A response without its text, which is read again when a pair is written."""

    offset: int
    answer: str | None  # lower case; None without a clear answer
    respell: bool
    digest: bytes


@dataclass
class Responses:
    """Responses by question, in file order."""

    positive: dict[bytes, list[Response]] = field(default_factory=dict)
    negative: dict[bytes, list[Response]] = field(default_factory=dict)
    unclear: dict[bytes, list[Response]] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)


class CheckedLine(NamedTuple):
    """A line, checked.

    Attributes:
        number: of the line.
        error: why the line is no response; None: it is one.
        key: of the question.
        verdict: 'positive', 'negative', or the fault of the answer's format.
        response: of the line.
    """

    number: int
    error: str | None
    key: bytes = b""
    verdict: str = ""
    response: Response | None = None


@dataclass(frozen=True)
class ResponseChecker:
    """Checks batches of lines.

    Attributes:
        checks: names of `answer_checks.CHECKS`.
        settings: see `PairSettings`.
    """

    checks: tuple[str, ...]
    settings: PairSettings

    def __call__(self, lines: Sequence[Line]) -> list[CheckedLine]:
        """The lines, checked."""
        return [self._check(line) for line in lines]

    def _check(self, line: Line) -> CheckedLine:
        error = line.error or _fault(line.item, self.settings.use_correctness_cache)
        if error:
            return CheckedLine(line.number, error)
        return CheckedLine(line.number, None, *_judge(line, self.checks, self.settings))


def read_responses(
    file: Path, checks: tuple[str, ...], settings: PairSettings, on_progress: Callable[[int], None]
) -> Responses:
    """The responses of a file.

    Args:
        file: JSONL.
        checks: names of `answer_checks.CHECKS`.
        settings: see `PairSettings`.
        on_progress: called with the number of lines read.
    Raises:
        DataError: a bad line, unless the settings skip those.
    """
    responses = Responses()
    lines = islice(read_lines(file), settings.max_lines)
    checker = ResponseChecker(checks, settings)
    for line in map_lines(checker, lines, settings.workers, settings.ray_address):
        responses.counts["lines"] += 1
        on_progress(responses.counts["lines"])
        if line.error:
            if settings.on_bad_line == "error":
                raise DataError(f"{file}:{line.number}: {line.error}; --on-bad-line skip leaves such lines out")
            responses.counts["bad_lines"] += 1
            continue
        groups = {"positive": responses.positive, "negative": responses.negative}
        group = groups.get(line.verdict, responses.unclear)
        group.setdefault(line.key, []).append(line.response)
        responses.counts["format" if group is responses.unclear else line.verdict] += 1
        if group is responses.unclear:
            responses.counts[f"format/{line.verdict}"] += 1
    return responses


def _fault(item: dict, use_correctness_cache: bool) -> str | None:
    """Why an object is no response; None if it is one."""
    needed = (*_NEEDED, "is_correct") if use_correctness_cache else _NEEDED
    missing = [name for name in needed if item.get(name) is None]
    if missing:
        return f"{missing[0]!r} is missing"
    if not isinstance(item["question"], str) or not isinstance(item["response"], str):
        return "'question' and 'response' must be texts"
    if use_correctness_cache and item["is_correct"] not in (0, 1):
        return "'is_correct' must be 0 or 1"
    version = item.get("prompt_version", "en")
    return None if version in PROMPT_VERSIONS else f"prompt_version {version!r}; use {', '.join(PROMPT_VERSIONS)}"


def _judge(line: Line, checks: tuple[str, ...], settings: PairSettings) -> tuple[bytes, str, Response]:
    """Key of a response's question; 'positive', 'negative' or the fault of its format; the response."""
    item = line.item
    reference, text, version = str(item["answer"]), item["response"], item.get("prompt_version", "en")
    key = _digest(json.dumps([*(item.get(name) or "" for name in MEDIA), item["question"], reference]))
    if settings.use_correctness_cache:
        verdict = "positive" if int(item["is_correct"]) else "negative"
        return key, verdict, Response(line.offset, None, False, _digest(text))
    respell = False
    try:
        answer = final_answer(text, version)
        correct = is_correct(answer, reference, checks, settings.as_upstream)
        # Upstream respells wrong answers too: "Final answer: 15" becomes "Final answer: 5" and is rejected as wrong.
        if settings.answer_fix and version in ("en", "zh") and (correct or settings.as_upstream):
            respell = True
            text = with_reference_spelling(text, answer, reference)
    except FormatError as error:
        return key, str(error), Response(line.offset, None, False, _digest(text))
    return key, "positive" if correct else "negative", Response(line.offset, answer.lower(), respell, _digest(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
