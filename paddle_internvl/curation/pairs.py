"""Preference pairs by correctness: positive and negative responses to one question.

In: a JSONL of responses, as `curate sample` and upstream's sampling write it: `question answer response`, optionally
`image video prompt_version is_correct meta`. Out: upstream's files of pairs and items, and counts of whatever is in no
pair. Source: upstream's `mmpr_data_pipeline_correctness_postprocess.py`; MPO, arXiv 2411.10442.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from paddle_internvl.curation.answer_checks import checks_of
from paddle_internvl.curation.final_answers import (
    final_answer,
    with_reference_spelling,
)
from paddle_internvl.curation.jsonl import as_line, parse_line
from paddle_internvl.curation.responses import MEDIA, PairSettings, Response, read_responses
from paddle_internvl.jsonl import complete_file

_MANY_LINES, _FEW_PAIRS = 500_000, 3  # upstream keeps 3 pairs a key in larger files
KINDS = ("correctness_rules", "format_rules")  # of the rejected response: a wrong answer, no clear answer


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
    responses = read_responses(file, checks, settings, on_progress)
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


def _choose(
    positive: list[Response],
    rejected: list[Response],
    kind: str,
    limit: int,
    settings: PairSettings,
    generator: random.Random,
    counts: Counter,
) -> list[tuple[Response, Response]]:
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


def _is_substring(chosen: Response, rejected: Response, as_upstream: bool) -> bool:
    """Whether the chosen answer is in the rejected one, which may be right then. Upstream compares a missing answer as
    'none', so that a chosen "No" or "one" has no pair with an unclear response."""
    if rejected.answer is None:
        return as_upstream and chosen.answer in "none"
    return chosen.answer in rejected.answer


def _distinct(pairs: list[tuple[Response, Response]]) -> list[tuple[Response, Response]]:
    """Pairs without those whose two texts occurred before."""
    return list({(chosen.digest, other.digest): (chosen, other) for chosen, other in reversed(pairs)}.values())[::-1]


def _item(texts: BinaryIO, response: Response) -> dict:
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
    return {name: item[name] for name in MEDIA if item.get(name)}


def _pair(chosen: dict, rejected: dict) -> dict:
    """The preference record of two responses."""
    pair = {**_media(chosen), "question": chosen["question"]}
    pair |= {"chosen": chosen["response"], "rejected": rejected["response"], "answer_gt": str(chosen["answer"])}
    metas = {"chosen_meta": chosen, "rejected_meta": rejected}
    return pair | {name: item["meta"] for name, item in metas.items() if "meta" in item}
