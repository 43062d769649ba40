"""Packing: packs and draws of upstream's own run, and splits, drops and resuming by hand."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from paddle_internvl.training import PackedDataset, SFTDataset
from paddle_internvl.training.draws import OrderedSamples, dataset_weights, mixture_draws
from paddle_internvl.training.pack_stream import PackStream
from paddle_internvl.training.reader import SampleReader
from tests.training.made_samples import (
    CONTEXT,
    assert_equal_packs,
    make_sample,
    pack_samples,
    random_samples,
    tile_numbers,
)

GOLDENS = Path(__file__).parents[1] / "goldens/training"
PACKS = np.load(GOLDENS / "packing/packs.npz")
RUNS = {run: json.loads((GOLDENS / f"packing/{run}.json").read_text(encoding="utf-8")) for run in ("plain", "strict")}
NAMES = ("max_packed_tokens", "num_images_expected", "max_buffer_size", "allow_overflow", "strict_mode")


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


def test_text_and_pictures_share_a_pack():
    _, (made,) = pack_samples([make_sample(0, 1, "abcd"), make_sample(1, "efg"), make_sample(2, 2, "hi", learnt=2)])
    assert made["samples"] == [["d", 0], ["d", 1], ["d", 2]]
    assert made["cu_seqlens"].tolist() == [0, 10, 13, 25]
    assert made["num_tiles"] == [1, 2] and made["image_flags"].tolist() == [1, 0, 1, 1]
    assert made["position_ids"].tolist() == [*range(10), *range(3), *range(12)]
    assert tile_numbers(made) == [0, 100, 200, 201]


def test_first_token_of_a_segment_has_no_weight():
    _, (made,) = pack_samples(
        [make_sample(0, "ab", learnt=1), make_sample(1, "cde", learnt=3)], loss_reduction="sample"
    )
    assert made["labels"].tolist() == [-100, ord("b"), ord("c"), ord("d"), ord("e")]
    assert made["loss_weight"].tolist() == [0, 1, 0, 0.5, 0.5]


def test_samples_with_too_many_tiles_are_dropped_and_listed():
    packed, made = pack_samples([make_sample(0, 7, "abc"), make_sample(1, 6, "abc"), make_sample(2, 4, 3, "abc")])
    assert packed.dropped == [["d", 0], ["d", 2]]
    assert [each["samples"] for each in made] == [[["d", 1]]]
    list(packed)
    assert packed.dropped == [["d", 0], ["d", 2]]  # of this iteration alone


def test_strict_mode_pads_tokens_and_tiles():
    _, (made,) = pack_samples([make_sample(0, 1, "abcd")], strict_mode=True)
    assert made["cu_seqlens"].tolist() == [0, 10, 40] and made["image_flags"].tolist() == [1, 0, 0, 0, 0, 0]
    assert made["pixel_values"].shape == (6, 3, 2, 2) and not made["pixel_values"][1:].any()
    assert (made["labels"][10:] == -100).all() and not made["loss_weight"][10:].any()


def test_samples_of_json_lines_pack_alike():
    arrays = [make_sample(0, 1, "abcd"), make_sample(1, "efg")]
    lists = [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in each.items()}
        for each in arrays
    ]
    assert_equal_packs(pack_samples(lists)[1][0], pack_samples(arrays)[1][0])
    assert pack_samples(lists)[1][0]["pixel_values"].dtype == np.float32


def test_packs_without_pixels():
    sample = make_sample(0, 2, "a" * 35, 1, "bcd", learnt=38)
    del sample["pixel_values"]
    _, made = pack_samples([sample], allow_overflow=True, strict_mode=True)
    assert [each["num_tiles"] for each in made] == [[2], [1]] and "pixel_values" not in made[0]


def test_unknown_loss_reduction():
    with pytest.raises(ValueError, match="loss_reduction 'mean'; use one of token, sample, square"):
        PackedDataset([], loss_reduction="mean")


@pytest.mark.parametrize("strict_mode", [False, True])
def test_resumed_packing_goes_on_where_it_stopped(strict_mode):
    samples = random_samples(60)
    order = list(mixture_draws([40, 20], [2, 1], seed=5, epoch=1))

    def packed():
        return PackedDataset(
            OrderedSamples(SampleReader(samples), iter(order)), 40, 6, 4, True, strict_mode, "square", CONTEXT
        )

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
        return PackStream(
            lambda epoch: OrderedSamples(SampleReader(samples), mixture_draws([12], [1], epoch=epoch)), **options
        )

    expected = list(islice(stream(), 30))
    orders = [OrderedSamples(SampleReader(samples), mixture_draws([12], [1], epoch=epoch)) for epoch in range(9)]
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
    for left, right in zip(pack_samples([None, *samples, None], 60)[1], pack_samples(samples, 60)[1], strict=True):
        assert_equal_packs(left, right)


def test_iterator_of_samples_does_not_resume():
    packed = PackedDataset(iter(random_samples(3)), 60)
    with pytest.raises(TypeError, match="OrderedSamples"):
        packed.load_state_dict(packed.state_dict())
