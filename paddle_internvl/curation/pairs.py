"""Preference pairs by correctness: positive and negative responses to one question.

In: a JSONL of responses, as `curate sample` and upstream's sampling write it: `question answer response`, optionally
`image video prompt_version is_correct meta`. Out: upstream's files of pairs and items, and counts of whatever is in no
pair. Source: upstream's `mmpr_data_pipeline_correctness_postprocess.py`; MPO, arXiv 2411.10442.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from paddle_internvl.curation.answer_checks import checks_of, is_correct
from paddle_internvl.curation.final_answers import (
    PROMPT_VERSIONS,
    FormatError,
    final_answer,
    with_reference_spelling,
)
from paddle_internvl.curation.jsonl import Line, as_line, parse_line, read_lines
from paddle_internvl.jsonl import complete_file
from paddle_internvl.training.mixture import DataError

_NEEDED = ("question", "answer", "response")
_MEDIA = ("image", "video")
_MANY_LINES, _FEW_PAIRS = 500_000, 3  # upstream keeps 3 pairs a key in larger files
KINDS = ("correctness_rules", "format_rules")  # of the rejected response: a wrong answer, no clear answer


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
    """

    num_pairs_per_key: int = 15
    checks: tuple[str, ...] | None = None
    answer_fix: bool = False
    use_correctness_cache: bool = False
    max_lines: int | None = None
    on_bad_line: str = "error"
    seed: int = 0
    as_upstream: bool = False


class _Response(NamedTuple):
    """A response without its text, which is read again when a pair is written."""

    offset: int
    answer: str | None  # lower case; None without a clear answer
    respell: bool
    digest: bytes


@dataclass
class _Responses:
    """Responses by question, in file order."""

    positive: dict[bytes, list[_Response]] = field(default_factory=dict)
    negative: dict[bytes, list[_Response]] = field(default_factory=dict)
    unclear: dict[bytes, list[_Response]] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)


def build_pairs(file: Path, out: Path, settings: PairSettings, on_progress=lambda lines: None) -> dict:
    """Write the preference pairs of a file of responses.

    Args:
        file: JSONL of responses; it is read twice, and its texts are not kept in memory.
        out: folder of upstream's layout: `raw/NAME_pairs_vqa_correctness_rules.jsonl`,
            `raw/NAME_pairs_vqa_format_rules.jsonl`, `pos_items/NAME.jsonl`, `neg_items/NAME.jsonl`.
        settings: see `PairSettings`.
        on_progress: called with the number of lines read.
    Returns:
        Counts: `lines`, `bad_lines`, `positive`, `negative`, `format`, `format/REASON`, `keys`, `keys_all_correct`,
        `keys_all_wrong`, and for each kind `KIND/possible`, `/substring`, `/duplicate`, `/identical`, `/over_limit`,
        `/pairs`; `checks` are the names of the checks.
    Raises:
        DataError: a bad line, or an unknown `prompt_version`; the message has file and line.
    """
    checks = settings.checks or checks_of(file.name)
    responses = _read(file, checks, settings, on_progress)
    counts, keys = responses.counts, responses.positive.keys()
    counts["keys"] = len(keys | responses.negative.keys() | responses.unclear.keys())
    counts["keys_all_correct"] = len(keys - responses.negative.keys() - responses.unclear.keys())
    counts["keys_all_wrong"] = len(responses.negative.keys() - keys)
    limit = settings.num_pairs_per_key
    if settings.as_upstream and counts["lines"] > _MANY_LINES:
        limit = min(limit, _FEW_PAIRS)
    generator = random.Random(settings.seed)  # from which upstream draws the pairs of all questions
    with open(file, "rb") as texts:
        for kind, rejected in zip(KINDS, (responses.negative, responses.unclear)):
            with complete_file(out / "raw" / f"{file.stem}_pairs_vqa_{kind}.jsonl") as stream:
                for key in (key for key in keys if key in rejected):
                    if not settings.as_upstream:
                        generator = random.Random(f"{settings.seed} {kind} {key.hex()}")
                    sides = responses.positive[key], rejected[key]
                    for chosen, other in _choose(*sides, kind, limit, settings, generator, counts):
                        stream.write(as_line(_pair(_item(texts, chosen), _item(texts, other))))
        with complete_file(out / "pos_items" / file.name) as stream:
            for response in (response for group in responses.positive.values() for response in group):
                stream.write(as_line(_item(texts, response)))
        with complete_file(out / "neg_items" / file.name) as stream:
            for item in (_item(texts, group[0]) for key, group in responses.negative.items() if key not in keys):
                stream.write(as_line({**_media(item), "question": item["question"], "answer": item["answer"]}))
    return {"checks": list(checks), **counts}


def _read(file: Path, checks: tuple[str, ...], settings: PairSettings, on_progress) -> _Responses:
    """Responses of a file, judged."""
    responses = _Responses()
    for line in read_lines(file):
        if settings.max_lines is not None and responses.counts["lines"] >= settings.max_lines:
            break
        responses.counts["lines"] += 1
        on_progress(responses.counts["lines"])
        error = line.error or _fault(line.item, settings.use_correctness_cache)
        if error:
            if settings.on_bad_line == "error":
                raise DataError(f"{file}:{line.number}: {error}; --on-bad-line skip leaves such lines out")
            responses.counts["bad_lines"] += 1
            continue
        key, verdict, response = _judge(line, checks, settings)
        group = {"positive": responses.positive, "negative": responses.negative}.get(verdict, responses.unclear)
        group.setdefault(key, []).append(response)
        responses.counts["format" if group is responses.unclear else verdict] += 1
        if group is responses.unclear:
            responses.counts[f"format/{verdict}"] += 1
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


def _judge(line: Line, checks: tuple[str, ...], settings: PairSettings) -> tuple[bytes, str, _Response]:
    """Key of a response's question; 'positive', 'negative' or the fault of its format; the response."""
    item = line.item
    reference, text, version = str(item["answer"]), item["response"], item.get("prompt_version", "en")
    key = _digest(json.dumps([*(item.get(name) or "" for name in _MEDIA), item["question"], reference]))
    if settings.use_correctness_cache:
        verdict = "positive" if int(item["is_correct"]) else "negative"
        return key, verdict, _Response(line.offset, None, False, _digest(text))
    respell = False
    try:
        answer = final_answer(text, version)
        correct = is_correct(answer, reference, checks, settings.as_upstream)
        # Upstream respells wrong answers too: "Final answer: 15" becomes "Final answer: 5" and is rejected as wrong.
        if settings.answer_fix and version in ("en", "zh") and (correct or settings.as_upstream):
            respell = True
            text = with_reference_spelling(text, answer, reference)
    except FormatError as error:
        return key, str(error), _Response(line.offset, None, False, _digest(text))
    return key, "positive" if correct else "negative", _Response(line.offset, answer.lower(), respell, _digest(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _choose(
    positive: list[_Response],
    rejected: list[_Response],
    kind: str,
    limit: int,
    settings: PairSettings,
    generator: random.Random,
    counts: Counter,
) -> list[tuple[_Response, _Response]]:
    """Pairs of a question: at most `limit` of those that the substring rule leaves, without duplicates."""

    def drop(reason: str, kept: list) -> list:
        counts[f"{kind}/{reason}"] += len(pairs) - len(kept)
        return kept

    def sample(limit: int) -> list:
        chosen = generator.sample(range(len(pairs)), min(len(pairs), limit))
        return [pairs[i] for i in sorted(chosen)]

    pairs = [(chosen, other) for chosen in positive for other in rejected]
    counts[f"{kind}/possible"] += len(pairs)
    if not settings.use_correctness_cache:
        pairs = drop("substring", [pair for pair in pairs if not _is_substring(*pair, settings.as_upstream)])
    if settings.as_upstream:  # which removes duplicates after the choice
        pairs = drop("over_limit", sample(limit))
        pairs = drop("duplicate", _distinct(pairs))
    else:
        pairs = drop("identical", [pair for pair in pairs if pair[0].digest != pair[1].digest])
        pairs = drop("duplicate", _distinct(pairs))
        pairs = drop("over_limit", sample(limit))
    counts[f"{kind}/pairs"] += len(pairs)
    return pairs


def _is_substring(chosen: _Response, rejected: _Response, as_upstream: bool) -> bool:
    """Whether the chosen answer is in the rejected one, which may be right then. Upstream compares a missing answer as
    'none', so that a chosen "No" or "one" has no pair with an unclear response."""
    if rejected.answer is None:
        return as_upstream and chosen.answer in "none"
    return chosen.answer in rejected.answer


def _distinct(pairs: list[tuple[_Response, _Response]]) -> list[tuple[_Response, _Response]]:
    """Pairs without those whose two texts occurred before."""
    return list({(chosen.digest, other.digest): (chosen, other) for chosen, other in reversed(pairs)}.values())[::-1]


def _item(texts: BinaryIO, response: _Response) -> dict:
    """The line of a response, with its parsed and respelled answer."""
    texts.seek(response.offset)
    item = parse_line(texts.readline(), 0, response.offset).item
    if response.answer is not None:
        answer = final_answer(item["response"], item.get("prompt_version", "en"))
        item["answer_pred"] = answer
        if response.respell:
            item["response"] = with_reference_spelling(item["response"], answer, str(item["answer"]))
    return item


def _media(item: dict) -> dict:
    return {name: item[name] for name in _MEDIA if item.get(name)}


def _pair(chosen: dict, rejected: dict) -> dict:
    """The preference record of two responses."""
    pair = {**_media(chosen), "question": chosen["question"]}
    pair |= {"chosen": chosen["response"], "rejected": rejected["response"], "answer_gt": str(chosen["answer"])}
    metas = {"chosen_meta": chosen, "rejected_meta": rejected}
    return pair | {name: item["meta"] for name, item in metas.items() if "meta" in item}
