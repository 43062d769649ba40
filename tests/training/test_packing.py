"""Packing: packs and draws of upstream's own run, and splits, drops and resuming by hand."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from paddle_internvl.training import PackedDataset, SFTDataset
from paddle_internvl.training.draws import OrderedSamples, dataset_weights, mixture_draws
from paddle_internvl.training.pack_stream import PackStream

GOLDENS = Path(__file__).parents[1] / "goldens/training"
PACKS = np.load(GOLDENS / "packing/packs.npz")
RUNS = {run: json.loads((GOLDENS / f"packing/{run}.json").read_text(encoding="utf-8")) for run in ("plain", "strict")}
NAMES = ("max_packed_tokens", "num_images_expected", "max_buffer_size", "allow_overflow", "strict_mode")
CONTEXT, START, END = 7, 8, 9  # ids of a picture's tokens in samples made by hand
TOKENS_PER_TILE = 4


@pytest.fixture(scope="module")
def dataset():
    arguments = {"max_seq_length": 400, "truncation": True, "max_dynamic_patch": 6}
    samples = SFTDataset(GOLDENS / "packing/meta.json", GOLDENS / "checkpoint", **arguments)
    return [samples[i] for i in range(len(samples))]


def draws_of(dataset):
    """The draw order of upstream's run with seed 0."""
    sizes = [sum(sample["dataset"] == name for sample in dataset) for name in ("ds_a", "ds_b")]
    return mixture_draws(sizes, dataset_weights(sizes))


def sample_id(dataset: str, index: int) -> str:
    return f"{dataset[-1]}{index:02d}"


def test_draws_are_upstream_s(dataset):
    drawn = [[dataset[i]["dataset"], sample_id(dataset[i]["dataset"], dataset[i]["index"])] for i in draws_of(dataset)]
    assert drawn == [draw[:2] for draw in RUNS["plain"]["draws"]]


@pytest.mark.parametrize("reduction", ["token", "sample", "square"])
@pytest.mark.parametrize("run", RUNS)
def test_packs_are_upstream_s(dataset, run, reduction):
    drawn = []

    def samples():
        for index in draws_of(dataset):
            drawn.append(index)
            yield dataset[index]

    settings = {name: RUNS[run]["settings"][name] for name in NAMES}
    expected = RUNS[run]["packs"]
    packs = PackedDataset(samples(), **settings, loss_reduction=reduction)
    for k, (pack, reference) in enumerate(zip(packs, expected, strict=True)):
        assert [sample_id(*name) for name in pack["samples"]] == reference["members"]
        assert len(drawn) == reference["after_draws"]
        assert pack["cu_seqlens"].dtype == np.int32 and pack["cu_seqlens"].tolist() == reference["cu_seqlens"]
        assert pack["image_flags"].tolist() == reference["image_flags"]
        for field in ("input_ids", "labels", "position_ids"):
            assert pack[field].dtype == np.int64
            np.testing.assert_array_equal(pack[field], PACKS[f"{run}.{k:02d}.{field}"], err_msg=field)
        assert pack["loss_weight"].dtype == np.float32
        np.testing.assert_allclose(
            pack["loss_weight"], PACKS[f"{run}.{k:02d}.loss_weight.{reduction}"], rtol=1e-6, atol=0
        )
        np.testing.assert_allclose(pack["pixel_values"].mean(axis=(1, 2, 3)), reference["tile_means"], atol=1e-4)
        assert sum(pack["num_tiles"]) == pack["image_flags"].sum()
    assert packs.dropped == [] and packs.split == []


def make_sample(index: int, *parts: int | str, learnt: int = 3) -> dict:
    """A sample of text ("abc": three tokens) and pictures (number of tiles); the text of its last tokens is learnt."""
    ids: list[int] = []
    for part in parts:
        picture = isinstance(part, int)
        ids += [START, *[CONTEXT] * (part * TOKENS_PER_TILE), END] if picture else [ord(letter) for letter in part]
    num_tiles = [part for part in parts if isinstance(part, int)]
    ids = np.array(ids, np.int64)
    tiles = max(1, sum(num_tiles))
    return {
        "input_ids": ids,
        "labels": np.where((np.arange(len(ids)) >= len(ids) - learnt) & (ids > END), ids, -100),
        "position_ids": np.arange(len(ids)),
        "num_tiles": num_tiles,
        "image_flags": np.full(tiles, bool(num_tiles), np.int64),
        "pixel_values": np.stack([np.full((3, 2, 2), 100 * index + t, np.float32) for t in range(tiles)]),
        "dataset": "d",
        "index": index,
    }


def pack(samples, max_packed_tokens=40, num_images_expected=6, max_buffer_size=2, *, token_id=CONTEXT, **options):
    options["img_context_token_id"] = token_id
    packed = PackedDataset(samples, max_packed_tokens, num_images_expected, max_buffer_size, **options)
    return packed, list(packed)


def tile_numbers(pack) -> list[int]:
    return pack["pixel_values"][:, 0, 0, 0].astype(int).tolist()


def assert_equal_packs(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for field, value in left.items():
        np.testing.assert_array_equal(value, right[field], err_msg=field)


def test_text_and_pictures_share_a_pack():
    _, (made,) = pack([make_sample(0, 1, "abcd"), make_sample(1, "efg"), make_sample(2, 2, "hi", learnt=2)])
    assert made["samples"] == [["d", 0], ["d", 1], ["d", 2]]
    assert made["cu_seqlens"].tolist() == [0, 10, 13, 25]
    assert made["num_tiles"] == [1, 2] and made["image_flags"].tolist() == [1, 0, 1, 1]
    assert made["position_ids"].tolist() == [*range(10), *range(3), *range(12)]
    assert tile_numbers(made) == [0, 100, 200, 201]


def test_first_token_of_a_segment_has_no_weight():
    _, (made,) = pack([make_sample(0, "ab", learnt=1), make_sample(1, "cde", learnt=3)], loss_reduction="sample")
    assert made["labels"].tolist() == [-100, ord("b"), ord("c"), ord("d"), ord("e")]
    assert made["loss_weight"].tolist() == [0, 1, 0, 0.5, 0.5]


def test_samples_with_too_many_tiles_are_dropped_and_listed():
    packed, made = pack([make_sample(0, 7, "abc"), make_sample(1, 6, "abc"), make_sample(2, 4, 3, "abc")])
    assert packed.dropped == [["d", 0], ["d", 2]]
    assert [each["samples"] for each in made] == [[["d", 1]]]
    list(packed)
    assert packed.dropped == [["d", 0], ["d", 2]]  # of this iteration alone


def test_a_long_sample_is_an_error_unless_it_may_be_split():
    with pytest.raises(ValueError, match=r"d, annotation line 5: 50 tokens, more than max_packed_tokens=40"):
        pack([make_sample(4, "a" * 50)])


def test_split_before_the_picture_of_several_tiles_that_the_limit_would_cut():
    sample = make_sample(0, 2, "abc", 3, "defg", 2, "hij", learnt=20)  # pictures at 0-10, 13-27, 31-41
    packed, made = pack([sample], allow_overflow=True)
    first, second = made
    assert first["input_ids"].tolist() == sample["input_ids"][:31].tolist() and first["num_tiles"] == [2, 3]
    assert second["input_ids"].tolist() == sample["input_ids"][31:].tolist() and second["num_tiles"] == [2]
    assert tile_numbers(first) == [0, 1, 2, 3, 4] and tile_numbers(second) == [5, 6]
    assert second["position_ids"].tolist() == [*range(31, 44)]
    assert first["samples"] == second["samples"] == [["d", 0]] and packed.split == []


def test_split_in_text_goes_on_at_the_next_picture_and_lists_the_loss():
    sample = make_sample(3, 2, "a" * 35, 1, "bcd", learnt=38)  # the limit is 5 tokens before the picture
    packed, (first, second) = pack([sample], allow_overflow=True)
    assert first["input_ids"].tolist() == sample["input_ids"][:40].tolist() and tile_numbers(first) == [300, 301]
    assert second["input_ids"].tolist() == sample["input_ids"][45:].tolist() and tile_numbers(second) == [302]
    assert packed.split == [["d", 3, 5]]


def test_overflow_splits_the_sample_that_went_beyond_the_limit():
    samples = [make_sample(0, 1, "a" * 26), make_sample(1, 2, "bcd", 2, "ef", learnt=15)]  # 32 and 25 tokens
    packed, made = pack(samples, max_buffer_size=2, allow_overflow=True)
    assert [each["samples"] for each in made] == [[["d", 1]], [["d", 0]]]  # no picture fits beside sample 0
    assert packed.split == [] and made[0]["num_tiles"] == [2, 2]
    packed, made = pack(samples[:1] + [make_sample(1, "gh", 2, "bcd")], max_buffer_size=2, allow_overflow=True)
    assert [each["samples"] for each in made] == [[["d", 1]], [["d", 0], ["d", 1]]]
    assert made[0]["num_tiles"] == [2] and made[1]["num_tiles"] == [1] and len(made[1]["input_ids"]) == 34


def test_text_beyond_the_limit_is_lost_and_its_dummy_tile_stays():
    packed, (made,) = pack([make_sample(0, "a" * 45, learnt=45)], allow_overflow=True)
    assert len(made["input_ids"]) == 40 and made["image_flags"].tolist() == [0]
    assert packed.split == [["d", 0, 5]]


def test_part_without_learnt_tokens_is_lost():
    packed, (made,) = pack(
        [make_sample(0, 2, 6, "abcd")], num_images_expected=8, allow_overflow=True, max_packed_tokens=32
    )
    assert made["num_tiles"] == [6] and packed.split == [["d", 0, 10]]


def test_picture_longer_than_a_pack_is_an_error():
    with pytest.raises(ValueError, match="a picture takes more than max_packed_tokens=20 tokens"):
        pack([make_sample(0, "ab", 5, "abc")], max_packed_tokens=20, allow_overflow=True)


def test_picture_tokens_are_found_by_the_tiles():
    sample = make_sample(0, 2, "!!", 1, "!" * 9, "?" * 12, "!" * 20, 1, "ab", learnt=29)
    expected = pack([sample], allow_overflow=True)[1]
    (first, second), (also_first, also_second) = expected, pack([sample], allow_overflow=True, token_id=None)[1]
    assert_equal_packs(first, also_first)
    assert_equal_packs(second, also_second)


@pytest.mark.parametrize("token_id", [None, CONTEXT, 12345])
def test_pictures_that_are_not_found_are_an_error(token_id):
    sample = {**make_sample(0, 2, "a" * 40, 1, "abc"), "num_tiles": [1, 2]}
    with pytest.raises(ValueError, match=r"d, annotation line 1: no runs of <IMG_CONTEXT> .* \[1, 2\] tiles"):
        pack([sample], 30, allow_overflow=True, token_id=token_id)


def test_strict_mode_pads_tokens_and_tiles():
    _, (made,) = pack([make_sample(0, 1, "abcd")], strict_mode=True)
    assert made["cu_seqlens"].tolist() == [0, 10, 40] and made["image_flags"].tolist() == [1, 0, 0, 0, 0, 0]
    assert made["pixel_values"].shape == (6, 3, 2, 2) and not made["pixel_values"][1:].any()
    assert (made["labels"][10:] == -100).all() and not made["loss_weight"][10:].any()


def test_packs_without_pixels():
    sample = make_sample(0, 2, "a" * 35, 1, "bcd", learnt=38)
    del sample["pixel_values"]
    _, made = pack([sample], allow_overflow=True, strict_mode=True)
    assert [each["num_tiles"] for each in made] == [[2], [1]] and "pixel_values" not in made[0]


def test_unknown_loss_reduction():
    with pytest.raises(ValueError, match="loss_reduction 'mean'; use one of token, sample, square"):
        PackedDataset([], loss_reduction="mean")


def random_samples(count: int) -> list[dict]:
    rng = np.random.default_rng(3)
    return [
        make_sample(i, *rng.choice([1, 2, 3], rng.integers(0, 3)).tolist(), "a" * int(rng.integers(5, 60)), learnt=5)
        for i in range(count)
    ]


@pytest.mark.parametrize("strict_mode", [False, True])
def test_resumed_packing_goes_on_where_it_stopped(strict_mode):
    samples = random_samples(60)
    order = list(mixture_draws([40, 20], [2, 1], seed=5, epoch=1))

    def packed():
        return PackedDataset(OrderedSamples(samples, iter(order)), 40, 6, 4, True, strict_mode, "square", CONTEXT)

    whole = packed()
    expected = list(whole)
    assert whole.split and len(expected) > 20
    for stop in range(len(expected)):
        interrupted = packed()
        for _, _ in zip(range(stop), interrupted):
            pass
        resumed = packed()
        resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
        rest = list(resumed)
        assert len(rest) == len(expected) - stop
        for left, right in zip(rest, expected[stop:]):
            assert_equal_packs(left, right)
        assert (resumed.dropped, resumed.split) == (whole.dropped, whole.split)


def test_stream_of_epochs_resumes():
    samples = random_samples(12)
    options = {"max_packed_tokens": 80, "num_images_expected": 6, "max_buffer_size": 2, "img_context_token_id": CONTEXT}

    def stream():
        return PackStream(lambda epoch: OrderedSamples(samples, mixture_draws([12], [1], epoch=epoch)), **options)

    expected = list(islice(stream(), 30))
    orders = [OrderedSamples(samples, mixture_draws([12], [1], epoch=epoch)) for epoch in range(9)]
    epochs = [list(PackedDataset(order, **options)) for order in orders]
    for left, right in zip(expected, sum(epochs, [])):
        assert_equal_packs(left, right)
    for stop in range(len(expected)):
        interrupted = stream()
        list(islice(interrupted, stop))
        resumed = stream()
        resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
        assert resumed.epoch == interrupted.epoch
        for left, right in zip(resumed, expected[stop:]):
            assert_equal_packs(left, right)


def test_stream_without_packs_is_an_error():
    with pytest.raises(ValueError, match="epoch 0 has no sample that can be packed"):
        next(iter(PackStream(lambda epoch: [])))


def test_skipped_samples_take_no_place():
    samples = random_samples(5)
    for left, right in zip(pack([None, *samples, None], 60)[1], pack(samples, 60)[1], strict=True):
        assert_equal_packs(left, right)


def test_iterator_of_samples_does_not_resume():
    packed = PackedDataset(iter(random_samples(3)), 60)
    with pytest.raises(TypeError, match="OrderedSamples"):
        packed.load_state_dict(packed.state_dict())
