"""A plain training loop, and its comparison with the golden runs of upstream's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.training.collate import collate
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.schedule import learning_rate_factor, warmup_steps
from paddle_internvl.training.trainable import set_drop_path
from tests.training.goldens import CHECKPOINT, FOLDER, golden, tensors, upstream_tensors


@dataclass(frozen=True)
class GoldenRun:
    """A run of upstream's Trainer.

    Attributes:
        content: settings, steps, changes of the trained tensors.
        arrays: tensors of upstream's names behind the prefixes `init.`, `final.` and `merged.`.
        samples: those of the run, in order.
        checkpoint: the untrained model.
    """

    content: dict
    arrays: dict[str, np.ndarray]
    samples: list[dict]
    checkpoint: Path = CHECKPOINT

    def stored(self, kind: str) -> dict[str, np.ndarray]:
        """Tensors of 'init', 'final' or 'merged' by upstream's name, without what PEFT puts into it."""
        return {
            name.removeprefix(f"{kind}.").replace("base_model.model.", "").replace(".default.", "."): value
            for name, value in self.arrays.items()
            if name.startswith(f"{kind}.")
        }

    def load(self) -> InternVLChatModel:
        """The untrained model."""
        return InternVLChatModel.from_pretrained(str(self.checkpoint), trainable=True)

    def upstream_tensors(self, model) -> dict[str, np.ndarray]:
        """A model's tensors under upstream's names."""
        return upstream_tensors({name: p.numpy() for name, p in model.named_parameters()}, self.checkpoint)


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


@cache
def run_samples(checkpoint: Path = CHECKPOINT) -> list[dict]:
    """Samples of the golden runs, as a checkpoint's template and tokenizer make them."""
    meta = FOLDER / "sft_run" / "meta.json"
    return list(SFTDataset(meta, checkpoint, max_seq_length=1024, max_dynamic_patch=4, use_thumbnail=True))


def internlm2_run(name: str) -> GoldenRun:
    """A golden run of `sft_run`."""
    arrays = tensors(f"sft_run/{name}") if (FOLDER / f"sft_run/{name}.safetensors").exists() else {}
    return GoldenRun(golden(f"sft_run/{name}"), arrays, run_samples())


def train(expected: GoldenRun, prepare: Callable, decay_rule: str) -> Run:
    """Twelve steps with the settings of a golden run.

    Args:
        expected: the golden run.
        prepare: chooses the trainable parameters of the model.
        decay_rule: of `decayed_parameters`.
    """
    settings, model = expected.content["settings"], expected.load()
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
    order = cycle(expected.samples)
    for step in range(max_steps):
        rate = settings["learning_rate"] * learning_rate_factor("cosine", step, warmup, max_steps)
        losses = []
        for _ in range(accumulation):
            loss = sft_loss(model, collate([next(order) for _ in range(settings["per_device_train_batch_size"])]))
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


def require_equal_steps(run: Run, expected: GoldenRun) -> None:
    steps = expected.content["steps"]
    assert len(run.steps) == len(steps) == 12
    for ours, theirs in zip(run.steps, steps):
        assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-12)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-6)
        assert ours["micro_losses"] == pytest.approx(theirs["micro_losses"], rel=5e-6)
        assert ours["grad_norm_before_clip"] == pytest.approx(theirs["grad_norm_before_clip"], rel=2e-5)


def require_equal_weights(run: Run, expected: GoldenRun) -> None:
    """Changes of every trained tensor, the whole of the stored ones, the loss after the run; the rest is frozen."""
    initial, final = upstream_tensors(run.initial, expected.checkpoint), expected.upstream_tensors(run.model)
    changes = expected.content["change_norms"]
    assert initial.keys() == changes.keys()
    for key, change in changes.items():
        assert np.linalg.norm(final[key] - initial[key]) == pytest.approx(change, rel=1e-3), key
    for key, value in expected.stored("final").items():
        assert np.linalg.norm(final[key] - value) <= 1e-3 * np.linalg.norm(value - initial[key]), key
    for (key, before), (_, after) in zip(expected.load().named_parameters(), run.model.named_parameters()):
        assert key in run.initial or (before.numpy() == after.numpy()).all(), f"{key} is frozen and has moved"
    loss = float(sft_loss(run.model, collate(expected.samples[:2])))
    assert loss == pytest.approx(expected.content["loss_of_first_two_samples_after"], rel=5e-6)
