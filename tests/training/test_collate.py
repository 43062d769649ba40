"""Batches of samples, and of one pack."""

import numpy as np
import pytest

from paddle_internvl.training import PackedDataset
from paddle_internvl.training.collate import collate


def make_sample(index: int, ids: list[int], tiles: int) -> dict:
    return {
        "input_ids": np.array(ids),
        "labels": np.array([-100, *ids[1:]]),
        "position_ids": np.arange(len(ids)),
        "num_tiles": [tiles],
        "image_flags": np.ones(tiles, np.int64),
        "pixel_values": np.full((tiles, 3, 2, 2), index, np.float32),
        "dataset": "d",
        "index": index,
    }


def test_samples_are_padded_to_the_longest():
    batch = collate([make_sample(0, [5, 0, 0], 1), make_sample(4, [0, 6, 7, 8, 0], 2)])
    assert batch["input_ids"].tolist() == [[5, 0, 0, 0, 0], [0, 6, 7, 8, 0]]
    assert batch["labels"].tolist() == [[-100, 0, 0, -100, -100], [-100, 6, 7, 8, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]  # id 0 is a token
    assert all(batch[field].dtype == np.int64 for field in ("input_ids", "labels", "position_ids", "attention_mask"))
    assert batch["image_flags"].tolist() == [1, 1, 1]
    assert batch["pixel_values"].shape == (3, 3, 2, 2) and batch["pixel_values"].dtype == np.float32
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [0, 4, 4]
    assert batch["samples"] == [["d", 0], ["d", 4]]
    assert "cu_seqlens" not in batch and "loss_weight" not in batch


def test_a_pack_is_a_batch_of_one_row():
    (pack,) = PackedDataset([make_sample(0, [5, 0, 0], 1), make_sample(4, [0, 6, 7, 8, 0], 2)], 12, 4, strict_mode=True)
    batch = collate([pack])
    for field in ("input_ids", "labels", "position_ids", "loss_weight"):
        assert batch[field].shape == (1, 12)
        np.testing.assert_array_equal(batch[field][0], pack[field])
    assert batch["cu_seqlens"].dtype == np.int32 and batch["cu_seqlens"].tolist() == [0, 3, 8, 12]
    assert batch["image_flags"].tolist() == [1, 1, 1, 0] and len(batch["pixel_values"]) == 4
    assert "attention_mask" not in batch


def test_a_batch_holds_one_pack():
    packs = list(PackedDataset([make_sample(i, [1, 2, 3], 1) for i in range(4)], 6))
    assert len(packs) == 2
    with pytest.raises(ValueError, match="2 packs in a batch; set per_device_train_batch_size to 1"):
        collate(packs)


def test_an_empty_batch_is_an_error():
    with pytest.raises(ValueError, match="an empty batch"):
        collate([])
