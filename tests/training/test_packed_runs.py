"""Packed training: steps of a plain loop over upstream's packs, resuming with workers, the held-out loss."""

import json
from itertools import islice

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.cli.main import main
from paddle_internvl.training import PackedDataset, SFTDataset, sft_loss, train
from paddle_internvl.training.collate import collate
from paddle_internvl.training.draws import dataset_weights, mixture_draws
from paddle_internvl.training.losses import count_learnt
from paddle_internvl.training.trainable import set_drop_path, set_trainable
from tests.training.goldens import CHECKPOINT, FOLDER, golden

SETTINGS = golden("packing/plain")["settings"]
LIMITS = {name: SETTINGS[name] for name in ("max_packed_tokens", "num_images_expected", "max_buffer_size")}
DATA = {"max_seq_length": 400, "truncation": True, "max_dynamic_patch": 2, "seed": 3}
CONFIG = {
    **LIMITS, **DATA, "use_packed_ds": True, "loss_reduction": "square", "device": "cpu", "max_steps": 4,
    "save_steps": 2, "eval_steps": 3, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "warmup_ratio": 0.0,
    "weight_decay": 0.05, "gradient_accumulation_steps": 1, "freeze_llm": True, "freeze_backbone": True,
}  # fmt: skip


class KilledError(Exception):
    """Stands for kill -9."""


class KilledDataset(SFTDataset):
    """Kills the run that draws sample number `at`."""

    at = -1

    def build(self, i, pixels=True, epoch=0):
        self.at -= 1
        if self.at == 0:
            raise KilledError
        return super().build(i, pixels, epoch)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Meta JSON of held-out samples."""
    file = tmp_path_factory.mktemp("held_out") / "meta.json"
    fields = {"root": str(FOLDER / "media"), "annotation": str(FOLDER / "packing/b.jsonl"), "repeat_time": 0.2}
    file.write_text(json.dumps({"held_out": fields}))
    return file


def run(output, held_out, dataset=None, **changes):
    """Weights of the projector after a run, the metrics, and the model."""
    dataset = dataset or SFTDataset(FOLDER / "packing/meta.json", CHECKPOINT, **DATA)
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    evaluation = {"eval_meta_path": None if held_out is None else str(held_out)}
    train({**CONFIG, **evaluation, "output_dir": str(output), **changes}, model, dataset)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {name: p.numpy() for name, p in model.mlp1.named_parameters()}, lines, model


@pytest.fixture(scope="module")
def straight(tmp_path_factory, held_out):
    """Outcome of an uninterrupted run."""
    return run(tmp_path_factory.mktemp("straight"), held_out)


def test_steps_are_those_of_a_plain_loop(straight):
    dataset = SFTDataset(FOLDER / "packing/meta.json", CHECKPOINT, **DATA)
    sizes = [len(spec.annotations) for spec in dataset.datasets]
    samples = (dataset[index] for index in mixture_draws(sizes, dataset_weights(sizes), seed=3))
    packs = PackedDataset(samples, **LIMITS, loss_reduction="square")
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    set_drop_path(model, 0.0)
    set_trainable(model, freeze_llm=True, freeze_backbone=True)
    model.train()
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.mlp1.parameters(), weight_decay=0.05, grad_clip=clip)
    for line, pack in zip(straight[1], islice(packs, 4), strict=True):
        loss = sft_loss(model, collate([pack]))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        assert line["loss"] == float(loss)
        assert line["tokens"] == len(pack["input_ids"]) and line["tiles"] == len(pack["image_flags"])
    for name, p in model.mlp1.named_parameters():
        np.testing.assert_array_equal(straight[0][name], p.numpy())
    assert [round(line["epoch"] * 33, 6) for line in straight[1]] == [12, 16, 18, 20]  # samples drawn


def test_packs_that_are_made_already(straight, tmp_path):
    dataset = SFTDataset(FOLDER / "packing/meta.json", CHECKPOINT, **DATA)
    sizes = [len(spec.annotations) for spec in dataset.datasets]
    samples = (dataset[index] for index in islice(mixture_draws(sizes, dataset_weights(sizes), seed=3), 16))
    packs = PackedDataset(samples, **LIMITS, loss_reduction="square")
    plain = {"use_packed_ds": False, "shuffle": False, "per_device_train_batch_size": 1, "max_steps": 2}
    lines = run(tmp_path, None, packs, **plain, eval_steps=None)[1]
    assert [line["loss"] for line in lines] == [line["loss"] for line in straight[1][:2]]


def test_skipped_samples_are_counted(held_out, tmp_path, capsys):
    lines = (FOLDER / "packing/a.jsonl").read_text().splitlines()[:3]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{}", "not JSON"]))
    fields = {"root": str(FOLDER / "media"), "annotation": str(tmp_path / "a.jsonl"), "repeat_time": 1}
    (tmp_path / "meta.json").write_text(json.dumps({"a": fields}))
    config = {**CONFIG, "max_steps": 1, "eval_steps": None, "output_dir": str(tmp_path / "out")}
    (tmp_path / "run.json").write_text(json.dumps({**config, "model_name_or_path": str(CHECKPOINT)}))
    command = ["train", str(tmp_path / "run.json"), "--meta_path", str(tmp_path / "meta.json")]
    assert main(command) == 2
    assert "a.jsonl:4: conversations" in capsys.readouterr().err
    assert main([*command, "--on_bad_sample", "skip"]) == 0
    assert f"2 bad samples were skipped: {tmp_path}/out/skipped.jsonl" in capsys.readouterr().err


def test_a_killed_packed_run_goes_on_bit_for_bit(straight, held_out, tmp_path):
    dataset = KilledDataset(FOLDER / "packing/meta.json", CHECKPOINT, **DATA)
    dataset.at = 19  # for step 4
    with pytest.raises(KilledError):
        run(tmp_path, held_out, dataset)
    assert (tmp_path / "checkpoint-2").is_dir() and not (tmp_path / "config.json").exists()
    weights, lines, _ = run(tmp_path, held_out, dataloader_num_workers=1)
    assert all((weights[name] == straight[0][name]).all() for name in weights)
    assert [{**line, "seconds": 0} for line in lines] == [{**line, "seconds": 0} for line in straight[1]]


def test_held_out_loss_is_the_mean_over_tokens(straight, held_out):
    _, lines, model = straight
    assert ["eval_loss" in line for line in lines] == [False, False, True, True]  # every eval_steps, and the end
    assert model.training
    batches = [collate([sample]) for sample in SFTDataset(held_out, CHECKPOINT, **DATA)]
    learnt = [count_learnt(batch) for batch in batches]
    model.eval()
    expected = sum(float(sft_loss(model, batch)) * number for batch, number in zip(batches, learnt)) / sum(learnt)
    assert lines[-1]["eval_tokens"] == sum(learnt)
    assert lines[-1]["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert lines[-2]["eval_loss"] != lines[-1]["eval_loss"]
