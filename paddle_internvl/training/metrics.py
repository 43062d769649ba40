"""metrics.jsonl: one line for each optimizer step of a training run, over all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import distributed
from paddlenlp.trainer import TrainerCallback

from paddle_internvl.jsonl import append_objects, read_objects
from paddle_internvl.training.clipping import square_sum
from paddle_internvl.training.losses import count_learnt

METRICS = "metrics.jsonl"  # in OUTPUT
_COUNTS = ("tokens", "learnt_tokens", "tiles")


class MetricsWriter(TrainerCallback):
    """Writes metrics.jsonl: one line for each optimizer step.

    Args:
        file: metrics.jsonl. A resumed run keeps the lines up to the step that it resumes from.
        trainer: whose optimizer and scheduler are read.
    Attributes:
        lines: of the steps of this process, oldest first.
    """

    def __init__(self, file: Path, trainer):
        self.lines: list[dict] = []
        self._file, self._trainer = file, trainer
        self._losses: list[float] = []
        self._metrics: list[Mapping[str, float]] = []
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._samples: list = []
        self._began = time.monotonic()
        self._line: dict = {}

    def add(self, batch: Mapping, loss: float, metrics: Mapping[str, float] | None = None) -> None:
        """Count a micro-batch.

        Args:
            batch: the micro-batch.
            loss: of the micro-batch.
            metrics: numbers of the trainer's `metric_names`, of which the line has the means over the micro-batches
                that have them.
        Raises:
            FloatingPointError: the loss is not finite; names the step and the samples.
        """
        self._samples += batch.get("samples", ())
        if not np.isfinite(loss):
            raise self._not_finite("loss", loss, batch.get("samples", ()))
        self._losses.append(loss)
        self._metrics += [metrics] if metrics else []
        real = batch.get("attention_mask")
        self._counts["tokens"] += int(np.asarray(batch["input_ids"]).size if real is None else np.asarray(real).sum())
        self._counts["learnt_tokens"] += count_learnt(batch)
        self._counts["tiles"] += len(batch["pixel_values"])

    def on_train_begin(self, args, state, control, **_trainer):
        """Create the file, or cut it to the steps before the one that a resumed run starts with."""
        if state.is_world_process_zero:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lines = [line for line in read_objects(self._file) if line["step"] <= state.global_step]
            self._file.write_bytes(b"")
            append_objects(self._file, lines)
        self._began = time.monotonic()

    def on_optimizer_begin(self, args, state, control, **_trainer):
        """Take learning rate and gradient norm before the step; a norm that is not finite stops the run."""
        shards = args.data_parallel_degree if self._trainer.sharded else 0
        norm = gradient_norm(self._trainer.owned_parameters(), shards)
        if not np.isfinite(norm):
            raise self._not_finite("gradient norm", norm, self._samples)
        self._line = {"learning_rate": self._trainer.lr_scheduler.get_lr(), "grad_norm": norm}

    def on_step_end(self, args, state, control, **_trainer):
        """Write the step's line."""
        now = time.monotonic()
        names, ranks = self._trainer.metric_names, self._trainer.args.dataset_world_size
        sums = [sum(metrics[name] for metrics in self._metrics) for name in names]
        loss, batches, *rest = sum_over_ranks(
            [np.mean(self._losses), len(self._metrics), *self._counts.values(), *sums]
        )
        counts, sums = rest[: len(_COUNTS)], rest[len(_COUNTS) :]
        line = {
            "step": state.global_step, "epoch": self._trainer.epoch, "loss": loss / ranks,
            **self._line, **dict(zip(_COUNTS, map(int, counts))), "seconds": now - self._began,
            **{name: total / batches for name, total in zip(names, sums) if batches},
            **self._trainer.evaluate_held_out(),
        }  # fmt: skip
        if state.is_world_process_zero:
            append_objects(self._file, [line])
        self.lines.append(line)
        self._began = time.monotonic()
        self._losses, self._metrics, self._samples = [], [], []
        self._counts = dict.fromkeys(_COUNTS, 0)

    def _not_finite(self, quantity: str, value: float, samples: Sequence) -> FloatingPointError:
        names = ", ".join(f"{name} line {index + 1}" for name, index in samples)
        step = self._trainer.state.global_step + 1
        return FloatingPointError(f"step {step}: the {quantity} is {value}; batch: {names}")


def gradient_norm(parameters: Sequence[paddle.Tensor], shards: int = 0) -> float:
    """L2 norm of the gradients of all parameters, before clipping.

    Args:
        parameters: whose gradients this rank has whole.
        shards: number of ranks that have the same shard of the parameters; 0: every rank has all parameters.
    """
    total = sum(float(square_sum(p.grad)) for p in parameters if p.grad is not None)
    return float(np.sqrt(sum_over_ranks([total])[0] / shards if shards else total))


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Elementwise sums of numbers over all ranks, in float64."""
    if not distributed.is_initialized():
        return [float(value) for value in values]
    total = paddle.to_tensor(values, dtype="float64")
    distributed.all_reduce(total)
    return total.tolist()
