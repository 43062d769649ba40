"""Twelve AdamW steps in a plain loop, as upstream's Trainer took them: losses, gradient norms, final weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import paddle
import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.schedule import learning_rate_factor, warmup_steps
from paddle_internvl.training.trainable import set_drop_path, set_trainable
from tests.training.goldens import CHECKPOINT, FOLDER, golden, tensors, upstream_tensors


@dataclass
class Run:
    """Outcome of a run.

    Attributes:
        model: trained.
        steps: dicts with lr, grad_norm_before_clip, loss and micro_losses.
        initial: parameters before the first step, by name.
    """

    model: InternVLChatModel
    steps: list[dict] = field(default_factory=list)
    initial: dict[str, np.ndarray] = field(default_factory=dict)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[dict]:
    meta = tmp_path_factory.mktemp("meta") / "meta.json"
    root, annotation = FOLDER / "media", FOLDER / "sft_run" / "train.jsonl"
    sets = {"train": {"root": str(root), "annotation": str(annotation), "data_augment": False, "repeat_time": 1}}
    meta.write_text(json.dumps(sets))
    return list(SFTDataset(meta, CHECKPOINT, max_seq_length=1024, max_dynamic_patch=4, use_thumbnail=True))


def padded(samples: list[dict]) -> dict:
    """A batch of samples, padded on the right."""
    width = max(len(sample["input_ids"]) for sample in samples)
    fill = {"input_ids": 0, "labels": -100, "position_ids": 0, "attention_mask": 0}
    rows = [{**sample, "attention_mask": np.ones(len(sample["input_ids"]), np.int64)} for sample in samples]
    batch = {
        name: np.stack([np.pad(row[name], (0, width - len(row[name])), constant_values=value) for row in rows])
        for name, value in fill.items()
    }
    return batch | {name: np.concatenate([row[name] for row in rows]) for name in ("pixel_values", "image_flags")}


def train(name: str, samples: list[dict], prepare: Callable, decay_rule: str) -> Run:
    """Twelve steps with the settings of a golden run.

    Args:
        name: of the golden.
        samples: the data set.
        prepare: chooses the trainable parameters of the model.
        decay_rule: of `decayed_parameters`.
    """
    settings = golden(f"sft_run/{name}")["settings"]
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    set_drop_path(model, 0.0)
    prepare(model)
    model.train()
    decayed = decayed_parameters(model, decay_rule)
    parameters = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
    run = Run(model, initial={name: p.numpy() for name, p in parameters.items()})
    max_steps, accumulation = settings["max_steps"], settings["gradient_accumulation_steps"]
    warmup = warmup_steps(max_steps, settings["warmup_ratio"])
    with_decay = {parameters[name].name for name in decayed}
    optimizer = paddle.optimizer.AdamW(
        learning_rate=0.0,
        parameters=list(parameters.values()),
        weight_decay=settings["weight_decay"],
        apply_decay_param_fun=lambda name: name in with_decay,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(settings["max_grad_norm"]),
    )
    order = cycle(range(len(samples)))
    for step in range(max_steps):
        rate = settings["learning_rate"] * learning_rate_factor("cosine", step, warmup, max_steps)
        losses = []
        for _ in range(accumulation):
            loss = sft_loss(model, padded([samples[next(order)] for _ in range(2)]))
            (loss / accumulation).backward()
            losses.append(float(loss))
        norm = np.sqrt(sum(float((p.grad.astype("float64") ** 2).sum()) for p in parameters.values()))
        optimizer.set_lr(rate)
        optimizer.step()
        optimizer.clear_grad()
        run.steps.append(
            {"lr": rate, "grad_norm_before_clip": norm, "micro_losses": losses, "loss": float(np.mean(losses))}
        )
    return run


def require_equal_steps(run: Run, name: str) -> None:
    expected = golden(f"sft_run/{name}")["steps"]
    assert len(run.steps) == len(expected) == 12
    for ours, theirs in zip(run.steps, expected):
        assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-12)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-6)
        assert ours["micro_losses"] == pytest.approx(theirs["micro_losses"], rel=5e-6)
        assert ours["grad_norm_before_clip"] == pytest.approx(theirs["grad_norm_before_clip"], rel=2e-5)


def require_equal_weights(run: Run, name: str, stored: str) -> None:
    """Changes of every trained tensor, and the whole of the stored ones."""
    initial = upstream_tensors(run.initial)
    final = upstream_tensors({name: p.numpy() for name, p in run.model.named_parameters()})
    changes = golden(f"sft_run/{name}")["change_norms"]
    assert initial.keys() == changes.keys()
    for key, change in changes.items():
        assert np.linalg.norm(final[key] - initial[key]) == pytest.approx(change, rel=1e-3), key
    if stored == name:
        for key, value in tensors(f"sft_run/{name}").items():
            key = key.removeprefix("final.")
            assert np.linalg.norm(final[key] - value) <= 1e-3 * np.linalg.norm(value - initial[key]), key


def freeze(**arguments) -> Callable:
    return lambda model: set_trainable(model, **arguments)


RUNS = {
    "full_internlm2": (freeze(freeze_backbone=True), "hf"),
    "full_one_group_internlm2": (freeze(freeze_backbone=True), "all"),
    "mlp_internlm2": (freeze(freeze_backbone=True, freeze_llm=True), "hf"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_upstream_s(name, samples):
    prepare, decay_rule = RUNS[name]
    run = train(name, samples, prepare, decay_rule)
    require_equal_steps(run, name)
    require_equal_weights(run, name, stored=name if name != "full_one_group_internlm2" else "")
    frozen = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    for (key, before), (_, after) in zip(frozen.named_parameters(), run.model.named_parameters()):
        assert key in run.initial or (before.numpy() == after.numpy()).all(), f"{key} is frozen and has moved"
    first = float(sft_loss(run.model, padded(samples[:2])))
    assert first == pytest.approx(golden(f"sft_run/{name}")["loss_of_first_two_samples_after"], rel=5e-6)


@pytest.mark.parametrize("name", ["full_internlm2", "mlp_internlm2"])
def test_hf_decay_groups_are_upstream_s(name):
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    RUNS[name][0](model)
    trainable = {key for key, p in model.named_parameters() if not p.stop_gradient}
    assert decayed_parameters(model, "all") == trainable
    assert sorted(trainable - decayed_parameters(model, "hf")) == sorted(golden(f"sft_run/{name}")["without_decay"])


def test_hf_decay_leaves_out_llama_s_norms_alone(models):
    for case, exempt in (("llama", True), ("qwen2", False)):
        model = InternVLChatModel.from_pretrained(str(models[case].checkpoint_folder), trainable=True)
        assert ("language_model.model.norm.weight" not in decayed_parameters(model, "hf")) == exempt
    with pytest.raises(ValueError, match="decay_rule='none'"):
        decayed_parameters(model, "none")


def test_schedules_by_hand():
    assert [learning_rate_factor("linear", step, 2, 6) for step in range(7)] == [0, 0.5, 1, 0.75, 0.5, 0.25, 0]
    assert [learning_rate_factor("constant", step, 0, 2) for step in range(3)] == [1, 1, 1]
    assert [learning_rate_factor("constant_with_warmup", step, 2, 9) for step in (0, 1, 2, 8)] == [0, 0.5, 1, 1]
    assert warmup_steps(12, 0.03) == 1 and warmup_steps(12, 0.2) == 3 and warmup_steps(12, 0.2, steps=5) == 5
    with pytest.raises(ValueError, match="lr_scheduler_type='sine'"):
        learning_rate_factor("sine", 0, 0, 1)
