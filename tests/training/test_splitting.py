"""Splits of packs that go beyond `max_packed_tokens`: upstream's where its splits are right, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.made_samples import (
    CONTEXT,
    END,
    START,
    TOKENS_PER_TILE,
    assert_equal_packs,
    make_sample,
    pack_samples,
    random_samples,
    tile_numbers,
)

FILE = Path(__file__).parents[1] / "goldens/training/packing/splits.json"
SPLITS = json.loads(FILE.read_text(encoding="utf-8"))


def test_a_long_sample_is_an_error_unless_it_may_be_split():
    with pytest.raises(ValueError, match=r"d, annotation line 5: 50 tokens, more than max_packed_tokens=40"):
        pack_samples([make_sample(4, "a" * 50)])


def test_split_before_the_picture_of_several_tiles_that_the_limit_would_cut():
    sample = make_sample(0, 2, "abc", 3, "defg", 2, "hij", learnt=20)  # pictures at 0-10, 13-27, 31-41
    packed, made = pack_samples([sample], allow_overflow=True)
    first, second = made
    assert first["input_ids"].tolist() == sample["input_ids"][:31].tolist() and first["num_tiles"] == [2, 3]
    assert second["input_ids"].tolist() == sample["input_ids"][31:].tolist() and second["num_tiles"] == [2]
    assert tile_numbers(first) == [0, 1, 2, 3, 4] and tile_numbers(second) == [5, 6]
    assert second["position_ids"].tolist() == [*range(31, 44)]
    assert first["samples"] == second["samples"] == [["d", 0]] and packed.split == []


def test_split_in_text_goes_on_at_the_next_picture_and_lists_the_loss():
    sample = make_sample(3, 2, "a" * 35, 1, "bcd", learnt=38)  # the limit is 5 tokens before the picture
    packed, (first, second) = pack_samples([sample], allow_overflow=True)
    assert first["input_ids"].tolist() == sample["input_ids"][:40].tolist() and tile_numbers(first) == [300, 301]
    assert second["input_ids"].tolist() == sample["input_ids"][45:].tolist() and tile_numbers(second) == [302]
    assert packed.split == [["d", 3, 5]]


@pytest.mark.parametrize("case", range(len(SPLITS)))
def test_splits_of_one_tile_pictures_are_upstream_s(case):
    samples = []
    for index, arrays in enumerate(SPLITS[case]["samples"]):
        ids = np.array(arrays["input_ids"])
        tiles = int((ids == START).sum())
        fields = {"input_ids": ids, "labels": np.array(arrays["labels"]), "position_ids": np.arange(len(ids))}
        samples.append({**make_sample(index, *[1] * tiles), **fields})
    packed, made = pack_samples(samples, **SPLITS[case]["settings"])
    assert packed.split
    for each, expected in zip(made, SPLITS[case]["packs"], strict=True):
        for field in ("input_ids", "position_ids"):
            assert each[field].tolist() == expected[field], field
        assert tile_numbers(each) == expected["pixel_values"]
        assert np.diff(each["cu_seqlens"]).tolist() == np.unique(expected["data_index"], return_counts=True)[1].tolist()


@pytest.mark.parametrize("max_packed_tokens", [34, 40, 77])
def test_splits_keep_tiles_with_their_tokens_and_count_every_token(max_packed_tokens):
    samples = random_samples(200)
    packed, made = pack_samples(samples, max_packed_tokens, 1000, 3, allow_overflow=True)
    whole = {(sample["dataset"], sample["index"]): sample for sample in samples}
    for each in made:
        assert len(each["input_ids"]) <= max_packed_tokens
        assert (each["input_ids"] == CONTEXT).sum() == TOKENS_PER_TILE * each["image_flags"].sum()
        assert (each["input_ids"] == START).sum() == (each["input_ids"] == END).sum() == len(each["num_tiles"])
        for name, start, stop in zip(each["samples"], each["cu_seqlens"], each["cu_seqlens"][1:]):
            places = each["position_ids"][start:stop]  # of the tokens in their sample
            assert each["input_ids"][start:stop].tolist() == whole[tuple(name)]["input_ids"][places].tolist()
    packed_tokens, lost = sum(len(each["input_ids"]) for each in made), sum(tokens for *_, tokens in packed.split)
    assert packed_tokens + lost == sum(len(sample["input_ids"]) for sample in samples) and lost > 0


def test_overflow_splits_the_sample_that_went_beyond_the_limit():
    samples = [make_sample(0, 1, "a" * 26), make_sample(1, 2, "bcd", 2, "ef", learnt=15)]  # 32 and 25 tokens
    packed, made = pack_samples(samples, max_buffer_size=2, allow_overflow=True)
    assert [each["samples"] for each in made] == [[["d", 1]], [["d", 0]]]  # no picture fits beside sample 0
    assert packed.split == [] and made[0]["num_tiles"] == [2, 2]
    packed, made = pack_samples(samples[:1] + [make_sample(1, "gh", 2, "bcd")], max_buffer_size=2, allow_overflow=True)
    assert [each["samples"] for each in made] == [[["d", 1]], [["d", 0], ["d", 1]]]
    assert made[0]["num_tiles"] == [2] and made[1]["num_tiles"] == [1] and len(made[1]["input_ids"]) == 34


def test_text_beyond_the_limit_is_lost_and_its_dummy_tile_stays():
    packed, (made,) = pack_samples([make_sample(0, "a" * 45, learnt=45)], allow_overflow=True)
    assert len(made["input_ids"]) == 40 and made["image_flags"].tolist() == [0]
    assert packed.split == [["d", 0, 5]]


def test_part_without_learnt_tokens_is_lost():
    packed, (made,) = pack_samples(
        [make_sample(0, 2, 6, "abcd")], num_images_expected=8, allow_overflow=True, max_packed_tokens=32
    )
    assert made["num_tiles"] == [6] and packed.split == [["d", 0, 10]]


def test_picture_longer_than_a_pack_is_an_error():
    with pytest.raises(ValueError, match="a picture takes more than max_packed_tokens=20 tokens"):
        pack_samples([make_sample(0, "ab", 5, "abc")], max_packed_tokens=20, allow_overflow=True)


def test_picture_tokens_are_found_by_the_tiles():
    sample = make_sample(0, 2, "!!", 1, "!" * 9, "?" * 12, "!" * 20, 1, "ab", learnt=29)
    expected = pack_samples([sample], allow_overflow=True)[1]
    (first, second), (also_first, also_second) = (
        expected,
        pack_samples([sample], allow_overflow=True, img_context_token_id=None)[1],
    )
    assert_equal_packs(first, also_first)
    assert_equal_packs(second, also_second)


@pytest.mark.parametrize("token_id", [None, CONTEXT, 12345])
def test_pictures_that_are_not_found_are_an_error(token_id):
    sample = {**make_sample(0, 2, "a" * 40, 1, "abc"), "num_tiles": [1, 2]}
    with pytest.raises(ValueError, match=r"d, annotation line 1: no runs of <IMG_CONTEXT> .* \[1, 2\] tiles"):
        pack_samples([sample], 30, allow_overflow=True, img_context_token_id=token_id)
