"""Batches of a training run: orders, packs of upstream's run, worker processes, skipped samples, resuming."""

import json
import os
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from paddle_internvl.training.batches import train_batches
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.draws import dataset_weights
from paddle_internvl.training.lengths import sample_lengths
from paddle_internvl.training.mixture import DataError
from paddle_internvl.training.order import length_grouped, shuffled, weighted
from paddle_internvl.training.prefetch import prefetch
from paddle_internvl.training.recipe import Recipe
from tests.training.goldens import CHECKPOINT, FOLDER, golden
from tests.training.made_samples import assert_equal_packs, make_sample, random_samples

GROUPED = {"group_by_length": True}
PACKING = {
    "use_packed_ds": True,
    "max_steps": 1,
    "max_packed_tokens": 80,
    "num_images_expected": 6,
    "max_buffer_size": 2,
}


@pytest.fixture(scope="module")
def dataset():
    """Data sets of upstream's packing run."""
    arguments = {"max_seq_length": 400, "truncation": True, "max_dynamic_patch": 6}
    return SFTDataset(FOLDER / "packing/meta.json", CHECKPOINT, **arguments)


def batches_of(dataset, config, seed=0, batch_size=2, rank=0, world=1, accumulation=1, workers=0, report=None):
    args = SimpleNamespace(
        seed=seed, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        dataset_rank=rank, dataset_world_size=world, dataloader_num_workers=workers,
    )  # fmt: skip
    return train_batches(dataset, Recipe.from_dict(config), args, tile_side=2, report=report)


def indices(batches, count: int) -> list[int]:
    return [index for batch in islice(batches, count) for _, index in batch["samples"]]


def test_orders():
    samples = random_samples(12)
    lengths = [len(sample["input_ids"]) for sample in samples]
    assert indices(batches_of(samples, {"shuffle": False}), 7) == [*range(12), 0, 1]
    one_epoch = {"seed": 5, "accumulation": 3}
    assert indices(batches_of(samples, {}, **one_epoch), 6) == shuffled(12, 5).tolist()
    assert indices(batches_of(samples, GROUPED, **one_epoch), 12) == [
        *length_grouped(shuffled(12, 5, 0), lengths, 2, accumulation=3),
        *length_grouped(shuffled(12, 5, 1), lengths, 2, accumulation=3),
    ]


def test_data_sets_are_drawn_by_weight(dataset):
    sizes = [len(spec.annotations) for spec in dataset.datasets]
    order = weighted(sizes, dataset_weights(sizes, use_data_resampling=True), seed=3)[:4]
    config = {"use_data_resampling": True, "group_by_length": False}
    drawn = [name for batch in islice(batches_of(dataset, config, seed=3), 2) for name in batch["samples"]]
    places = [dataset.place(index) for index in order]
    assert drawn == [[spec.name, annotation.index] for spec, annotation in places]


def test_lengths_are_estimated_without_pictures(dataset):
    lengths = sample_lengths(dataset)
    for i in range(len(dataset)):
        item = json.loads(dataset.place(i)[1].text)
        tokens = len(dataset[i]["input_ids"])
        if not item.get("image"):
            assert abs(lengths[i] - tokens) < 60  # of the system prompt and the roles
        else:
            assert lengths[i] > tokens - 60  # as many tiles as the picture may have


def test_micro_batches_of_ranks_are_those_of_accumulation():
    samples = random_samples(10)
    for config in ({"shuffle": False}, GROUPED):
        alone = [b["samples"] for b in islice(batches_of(samples, config, accumulation=2), 12)]
        ranks = [islice(batches_of(samples, config, rank=rank, world=2), 6) for rank in range(2)]
        assert [batch["samples"] for pair in zip(*ranks) for batch in pair] == alone


class Reads:
    """Samples that count how often each was read."""

    def __init__(self, samples):
        self.samples, self.read = samples, []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.read.append(index)
        return self.samples[index]


def test_resumed_batches_read_no_sample_before():
    samples = random_samples(9)
    config = {}
    expected = list(islice(batches_of(samples, config), 12))
    interrupted = batches_of(samples, config)
    list(islice(interrupted, 7))
    assert interrupted.epoch == 7 / 5
    reads = Reads(samples)
    resumed = batches_of(reads, config)
    resumed.start, resumed.stop = 7, 12
    for left, right in zip(resumed, expected[7:], strict=True):
        assert_equal_packs(left, right)
    assert reads.read == [index for batch in expected[7:] for _, index in batch["samples"]]


@pytest.mark.parametrize("config", [GROUPED, PACKING])
def test_workers_give_the_same_batches(config):
    samples = random_samples(14)
    for left, right in zip(islice(batches_of(samples, config, workers=2), 12), batches_of(samples, config)):
        assert_equal_packs(left, right)


def test_packs_are_upstream_s(dataset):
    settings = golden("packing/plain")["settings"]
    names = ("max_packed_tokens", "num_images_expected", "max_buffer_size", "max_seq_length")
    config = {"use_packed_ds": True, "max_steps": 1, **{name: settings[name] for name in names}}
    packs = np.load(FOLDER / "packing/packs.npz")
    expected = golden("packing/plain")["packs"]
    batches = batches_of(dataset, {**config, "loss_reduction": "square"}, batch_size=1)
    for k, (reference, batch) in enumerate(zip(expected, batches)):
        assert [f"{name[-1]}{index:02d}" for name, index in batch["samples"]] == reference["members"]
        np.testing.assert_array_equal(batch["input_ids"][0], packs[f"plain.{k:02d}.input_ids"])
        np.testing.assert_allclose(batch["loss_weight"][0], packs[f"plain.{k:02d}.loss_weight.square"], rtol=1e-6)
    assert batches.epoch == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_packs_of_two_ranks_resume(shuffle):
    samples = random_samples(20)
    config = {**PACKING, "shuffle": shuffle}
    for rank in range(2):
        place = {"rank": rank, "world": 2, "seed": 3}
        expected = list(islice(batches_of(samples, config, **place), 14))
        first_epoch = [index for pack in expected for _, index in pack["samples"]][:10]
        assert len(set(first_epoch)) == 10
        interrupted = batches_of(samples, config, **place)
        list(islice(interrupted, 5))
        resumed = batches_of(samples, config, **place, workers=1)
        resumed.start, resumed.stop = 5, 14
        resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
        for left, right in zip(resumed, expected[5:], strict=True):
            assert_equal_packs(left, right)
    with pytest.raises(ValueError, match="resumes on as many ranks"):
        resumed.load_state_dict(None)


def test_bad_samples_are_errors_or_skipped_and_reported(tmp_path):
    (tmp_path / "a.jsonl").write_text((FOLDER / "packing/b.jsonl").read_text().splitlines()[0] + "\n{}\n{}\nnot JSON\n")
    fields = {"annotation": str(tmp_path / "a.jsonl"), "root": str(FOLDER / "media"), "repeat_time": 1}
    (tmp_path / "meta.json").write_text(json.dumps({"a": fields}))
    samples = SFTDataset(tmp_path / "meta.json", CHECKPOINT)
    with pytest.raises(DataError, match="a.jsonl:2: conversations: a list with an answer"):
        indices(batches_of(samples, {"shuffle": False}), 1)
    report = tmp_path / "skipped.jsonl"
    for _ in range(2):  # a resumed run continues the report
        batches = batches_of(samples, {"shuffle": False, "on_bad_sample": "skip"}, report=report)
        made = list(islice(batches, 4))
        assert [batch["samples"] for batch in made] == [[["a", 0]], [], [["a", 0]], []]
        assert (made[1]["labels"] == -100).all() and made[1]["image_flags"].tolist() == [0]
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(entry["dataset"], entry["line"]) for entry in entries] == [("a", 2), ("a", 3), ("a", 4)]
    assert entries == batches.reader.skipped and "a.jsonl:4: not valid JSON" in entries[2]["reason"]


def test_too_many_tiles_for_a_pack_is_a_bad_sample():
    samples = [make_sample(0, 2, "abc"), make_sample(1, 7, "abc")]
    with pytest.raises(DataError, match="sample 2: 7 tiles are more than num_images_expected=6"):
        next(iter(batches_of(samples, PACKING)))
    batches = batches_of(samples, {**PACKING, "on_bad_sample": "skip"})
    assert indices(batches, 3) == [0, 0, 0] and batches.reader.skipped[0]["line"] == 2


def test_faults_of_packing_arguments():
    for change, message in (
        ({"max_steps": -1}, "max_steps is needed with use_packed_ds"),
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size=2 with use_packed_ds"),
        ({"max_seq_length": 81}, "max_seq_length=81 is more than max_packed_tokens=80"),
        ({"loss_reduction": "mean"}, "loss_reduction='mean'; supported: token, sample, square"),
        ({"on_bad_sample": "replace"}, "on_bad_sample='replace'; supported: error, skip"),
        ({"max_buffer_size": 0}, "max_buffer_size=0 must be above 0"),
        ({"eval_steps": 5}, "eval_meta_path is needed for an evaluation, or"),
        ({"evaluation_strategy": "epoch"}, "evaluation_strategy=.epoch.; supported: steps"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe.from_dict({**PACKING, **change})
    recipe = Recipe.from_dict({**PACKING, "group_by_length": False})
    assert recipe.data == {"max_seq_length": 80, "group_by_length": True}
    assert recipe.trainer["per_device_train_batch_size"] == 1


def test_a_worker_that_ends_is_an_error():
    assert list(prefetch(abs, range(-9, 0), workers=2)) == [*range(9, 0, -1)]
    with pytest.raises(RuntimeError, match="one of 2 data worker processes has ended"):
        list(prefetch(lambda _: os._exit(1), range(9), workers=2))
