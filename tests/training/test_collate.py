"""Batches of samples, and of one pack."""

from pathlib import Path

import numpy as np
import pytest

from paddle_internvl.training import PackedDataset, SFTDataset
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


def test_loss_of_a_pack_is_that_of_its_samples():
    from paddle_internvl import InternVLChatModel
    from paddle_internvl.training import sft_loss
    from paddle_internvl.training.losses import count_learnt

    goldens = Path(__file__).parents[1] / "goldens/training"
    dataset = SFTDataset(goldens / "packing/meta.json", goldens / "checkpoint", max_dynamic_patch=2)
    samples = [dataset[i] for i in (0, 3, 22)]
    assert [len(sample["num_tiles"]) for sample in samples] == [1, 0, 3]  # a picture, text, several pictures
    model = InternVLChatModel.from_pretrained(str(goldens / "checkpoint"), trainable=True)
    batches = [collate([sample]) for sample in samples]
    losses = np.array([float(sft_loss(model, batch)) for batch in batches])
    learnt = np.array([count_learnt(batch) for batch in batches])
    padded = float(sft_loss(model, collate(samples)))
    assert padded == pytest.approx(np.average(losses, weights=learnt), rel=1e-6)
    for reduction, weights in {"token": learnt, "sample": learnt**0.0, "square": learnt**0.5}.items():
        (pack,) = PackedDataset(samples, 1024, 12, 4, strict_mode=True, loss_reduction=reduction)
        packed = float(sft_loss(model, collate([pack])))
        assert packed == pytest.approx(np.average(losses, weights=weights), rel=1e-6)
