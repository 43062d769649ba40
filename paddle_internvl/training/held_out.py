"""Evaluation during training: the loss of a model on held-out samples, and other numbers of its trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np
import paddle

from paddle_internvl.training.collate import collate
from paddle_internvl.training.metrics import sum_over_ranks
from paddle_internvl.training.reader import SampleReader

Measure = Callable[[object, Mapping], tuple[Mapping[str, float], int]]  # model, batch -> numbers, weight of the batch


class HeldOut:
    """Held-out samples, shared among the ranks.

    Args:
        reader: of the samples.
        batch_size: samples of a forward pass.
        measure: the numbers of a batch, and its weight in their means.
        names: of the numbers.
        unit: what the weight counts.
        idle: batch that a rank without samples runs, for every rank has to run the model equally often.
        rank: this rank.
        world: number of ranks.
    """

    def __init__(
        self,
        reader: SampleReader,
        batch_size: int,
        measure: Measure,
        names: Sequence[str],
        unit: str,
        idle: Mapping,
        rank: int = 0,
        world: int = 1,
    ):
        self._reader, self._batch_size = reader, batch_size
        self._measure, self._names, self._unit = measure, names, unit
        self._indices: Sequence[int] = range(rank, len(reader.dataset), world)
        self._idle, self._passes = idle, range(0, len(range(0, len(reader.dataset), world)), batch_size)

    def evaluate(self, model) -> dict[str, float]:
        """Numbers of a model, in evaluation mode; every rank calls it at the same time.

        Args:
            model: an `InternVLNetwork`, left in training mode if it was in it.
        Returns:
            eval_<name>: weighted mean of each number; eval_<unit>: sum of the weights.
        """
        training, totals, weight = model.training, np.zeros(len(self._names)), 0
        model.eval()
        with paddle.no_grad():
            samples = self._reader.read((0, index) for index in self._indices)
            for _ in self._passes:
                batch = [sample for sample in islice(samples, self._batch_size) if sample is not None]
                numbers, count = self._measure(model, collate(batch) if batch else self._idle)
                if batch:
                    totals += np.array([numbers[name] for name in self._names]) * count
                    weight += count
        if training:
            model.train()
        *sums, weight = sum_over_ranks([*totals, weight])
        means = {f"eval_{name}": total / max(weight, 1) for name, total in zip(self._names, sums)}
        return {**means, f"eval_{self._unit}": int(weight)}
