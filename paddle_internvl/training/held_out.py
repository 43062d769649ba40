"""Evaluation loss: the loss of a model on held-out samples during training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import paddle

from paddle_internvl.training.collate import collate
from paddle_internvl.training.losses import count_learnt, sft_loss
from paddle_internvl.training.metrics import sum_over_ranks
from paddle_internvl.training.reader import SampleReader


class HeldOut:
    """Held-out samples, shared among the ranks.

    Args:
        reader: of the samples.
        batch_size: samples of a forward pass.
        rank: this rank.
        world: number of ranks.
    """

    def __init__(self, reader: SampleReader, batch_size: int, rank: int = 0, world: int = 1):
        self._reader, self._batch_size = reader, batch_size
        self._indices: Sequence[int] = range(rank, len(reader.dataset), world)

    def evaluate(self, model) -> dict[str, float]:
        """Loss of a model, in evaluation mode; every rank calls it at the same time.

        Args:
            model: an `InternVLNetwork`, left in training mode if it was in it.
        Returns:
            eval_loss: mean over all learnt tokens; eval_tokens: their number.
        """
        training, total, learnt = model.training, 0.0, 0
        model.eval()
        with paddle.no_grad():
            samples = self._reader.read((0, index) for index in self._indices)
            for _ in range(0, len(self._indices), self._batch_size):
                batch = [sample for sample in islice(samples, self._batch_size) if sample is not None]
                if batch:
                    inputs = collate(batch)
                    total += float(sft_loss(model, inputs)) * count_learnt(inputs)
                    learnt += count_learnt(inputs)
        if training:
            model.train()
        total, learnt = sum_over_ranks([total, learnt])
        return {"eval_loss": total / max(learnt, 1), "eval_tokens": int(learnt)}
