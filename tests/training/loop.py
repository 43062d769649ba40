"""A plain training loop, and its comparison with the golden runs of upstream's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle

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
def run_samples() -> list[dict]:
    """Samples of the golden runs."""
    meta = FOLDER / "sft_run" / "meta.json"
    return list(SFTDataset(meta, CHECKPOINT, max_seq_length=1024, max_dynamic_patch=4, use_thumbnail=True))


def train(name: str, prepare: Callable, decay_rule: str) -> Run:
    """Twelve steps with the settings of a golden run.

    Args:
        name: of the golden.
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
    order = cycle(run_samples())
    for step in range(max_steps):
        rate = settings["learning_rate"] * learning_rate_factor("cosine", step, warmup, max_steps)
        losses = []
        for _ in range(accumulation):
            loss = sft_loss(model, collate([next(order) for _ in range(2)]))
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
