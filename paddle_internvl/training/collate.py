"""Batches: samples or preference pairs padded on the right to one length, or one pack. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddle_internvl.prompt.encode import IGNORED

ANSWERS = ("chosen", "rejected")  # keys of a preference pair
_PADDING = {"input_ids": 0, "labels": IGNORED, "position_ids": 0}


def collate(samples: Sequence[dict]) -> dict:
    """Collate samples or preference pairs into a batch, or one pack into a batch of one row.

    Args:
        samples: sample dicts, pairs of `PreferenceDataset`, or one pack of `PackedDataset`.
    Returns:
        `input_ids`, `labels`, `position_ids` int64 [B, L]; `pixel_values` float32 [T, 3, S, S] and `image_flags` int64
        [T] of all samples; `samples` [dataset, annotation line from 0] of each. For samples `attention_mask` int64
        [B, L]: 1 in each row up to the true length, whatever the ids. For a pack `cu_seqlens` int32 and `loss_weight`
        float32 [1, L]. For pairs the rows are all chosen answers, then all rejected ones, and the tiles are there once.
    Raises:
        ValueError: more than one pack, or nothing.
    Source: upstream `pad_data_collator.py`, `concat_pad_data_collator`, whose mask leaves out every token with id 0.
    """
    if not samples:
        raise ValueError("an empty batch; give at least one sample")
    first = samples[0]
    if "cu_seqlens" in first:
        if len(samples) > 1:
            raise ValueError(f"{len(samples)} packs in a batch; set per_device_train_batch_size to 1 for packed data")
        rows = {field: np.asarray(first[field])[None] for field in (*_PADDING, "loss_weight")}
        return {**rows, **{field: first[field] for field in ("cu_seqlens", "pixel_values", "image_flags", "samples")}}
    rows = [sample[answer] for answer in ANSWERS for sample in samples] if ANSWERS[0] in first else samples
    lengths = np.array([len(row["input_ids"]) for row in rows])
    batch = {field: _pad_rows([row[field] for row in rows], lengths.max(), value) for field, value in _PADDING.items()}
    batch["attention_mask"] = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    for field in ("pixel_values", "image_flags"):
        batch[field] = np.concatenate([sample[field] for sample in samples])
    batch["samples"] = [[sample["dataset"], sample["index"]] for sample in samples]
    return batch


def _pad_rows(rows: list, length: int, value: int) -> np.ndarray:
    return np.stack([np.pad(np.asarray(row, np.int64), (0, length - len(row)), constant_values=value) for row in rows])
