"""Preference pairs: upstream's lengths and labels, several turns, clips, and batches with each picture once."""

import numpy as np
import pytest

from paddle_internvl.training.collate import collate
from paddle_internvl.training.lengths import sample_lengths
from paddle_internvl.training.mixture import DataError
from tests.training.preference_pairs import EXPECTED, golden_items, pairs_of

ANSWERS = {"chosen": "a cat.", "rejected": "two dogs in red"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return list(pairs_of(tmp_path_factory.mktemp("pairs"), golden_items()))


def test_lengths_labels_and_tiles_are_upstreams(pairs):
    for pair, step in zip(pairs, EXPECTED["steps"][:6]):
        shapes = step["shapes"]
        assert len(pair["pixel_values"]) == len(pair["image_flags"]) == shapes["tiles"]
        for answer in ANSWERS:
            assert [int((pair[answer]["labels"] != -100).sum())] == shapes[f"{answer}_learnable"]
            if len(pair["num_tiles"]) < 2:  # upstream pads pairs of several pictures to max_seq_length
                assert [1, len(pair[answer]["input_ids"])] == shapes[answer]


def test_a_batch_has_chosen_rows_then_rejected_rows_and_each_tile_once(pairs):
    batch = collate(pairs[:3])
    assert len(batch["pixel_values"]) == sum(len(pair["pixel_values"]) for pair in pairs[:3])
    rows = [pair[answer] for answer in ANSWERS for pair in pairs[:3]]
    assert batch["samples"] == [["pairs", 0], ["pairs", 1], ["pairs", 2]]
    for k, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["attention_mask"][k].sum() == length
        np.testing.assert_array_equal(batch["input_ids"][k, :length], row["input_ids"])
        np.testing.assert_array_equal(batch["labels"][k, :length], row["labels"])
    assert sample_lengths(pairs)[0] == len(rows[0]["input_ids"]) + len(rows[3]["input_ids"])


def test_of_several_turns_the_last_answer_is_learnt(tmp_path):
    turns = [("system", "a dog is red."), ("human", "<image>\nis it a cat?"), ("gpt", "no."), ("human", "what then?")]
    item = {"image": "p01.png", "conversations": [{"from": who, "value": text} for who, text in turns], **ANSWERS}
    clip = {"video": "vid2.gif", "question": "<video>\nwhat is it?", **ANSWERS}
    dataset = pairs_of(tmp_path, [item, clip], min_num_frame=3, max_num_frame=3)
    pair, text = dataset[0], dataset.tokenizer.decode
    for answer in ANSWERS:
        ids, labels = pair[answer]["input_ids"], pair[answer]["labels"]
        assert "no." in text(ids.tolist()) and "a dog is red." in text(ids.tolist())
        learnt = text(ids[labels != -100].tolist())
        assert ANSWERS[answer] in learnt and "no." not in learnt
    assert dataset[1]["num_tiles"] == [1, 1, 1]
    assert sample_lengths(dataset)[1] > 3 * dataset.tokens_per_tile


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rejected": None}, "pairs.jsonl:1: rejected: a text is needed"),
        ({"question": None}, r"question \(text\), or conversations"),
        ({"question": None, "conversations": [{"from": "gpt", "value": "a"}]}, "end with a question"),
        ({"question": "<image> and <image>", "image": ["p01.png"] * 3}, "3 pictures but 2 <image> marks"),
    ],
)
def test_a_bad_pair_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        pairs_of(tmp_path, [{"question": "a?", **ANSWERS, **changes}])[0]
