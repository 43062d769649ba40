"""Lengths of samples for length-grouped batches, without opening a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from paddle_internvl.training.arguments import DataArguments
from paddle_internvl.training.collate import ANSWERS
from paddle_internvl.training.dataset import SFTDataset


def sample_lengths(dataset: Sequence) -> list[int]:
    """Tokens of each sample: an estimate for an `SFTDataset`, exact for samples that are made already.

    The estimate is the annotation's `length`, or else the tokens of its texts, and of as many tiles as its pictures may
    have. Texts of as many characters as one before count as that one, so that few are tokenised. A line that is no
    sample has length 0.

    Source: upstream `internvl_chat_finetune.py`, `LazySupervisedDataset.__init__`.
    """
    if not isinstance(dataset, SFTDataset):
        return [_tokens(sample) for sample in dataset]
    text_tokens: dict[int, int] = {}  # of a text, by its characters
    lengths = []
    for spec in dataset.datasets:
        limit = spec.max_dynamic_patch or dataset.arguments.max_dynamic_patch
        for annotation in spec.annotations:
            item = _item(annotation.text)
            length = item.get("length")
            if not isinstance(length, int):
                text = _text(item)
                if len(text) not in text_tokens:
                    text_tokens[len(text)] = len(dataset.tokenizer(text)["input_ids"])
                length = text_tokens[len(text)] + _tiles(item, limit, dataset.arguments) * dataset.tokens_per_tile
            lengths.append(length)
    return lengths


def _tokens(sample: Mapping) -> int:
    """Tokens of a sample, or of both answers of a preference pair with their prompts."""
    return sum(len(sample[answer]["input_ids"]) for answer in ANSWERS if answer in sample) or len(sample["input_ids"])


def _item(line: str) -> Mapping:
    try:
        item = json.loads(line)
    except ValueError:
        return {"length": 0}
    return item if isinstance(item, dict) else {"length": 0}


def _text(item: Mapping) -> str:
    turns = item.get("conversations")
    values = [turn.get("value") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    values += [item.get(field) for field in ("question", *ANSWERS)]  # of a preference pair
    return "\n".join(value for value in values if isinstance(value, str))


def _tiles(item: Mapping, limit: int, arguments: DataArguments) -> int:
    """Maximum number of tiles of an item's pictures or frames."""
    if item.get("video"):
        return arguments.max_num_frame
    images = item.get("image") or []
    pictures = len(images) if isinstance(images, list) else 1
    if not pictures or not arguments.dynamic_image_size:
        return pictures
    limit = max(1, limit // pictures)
    return pictures * (limit + (arguments.use_thumbnail and limit > 1))
