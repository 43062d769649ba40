"""Order of training samples: sequential, shuffled, length-grouped or weighted, and the batches of each rank.

Every order is a function of (seed, epoch, rank, world), so that a resumed run sees the samples of an uninterrupted one.
Numpy only. An order holds indices into the datasets put one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from paddle_internvl.training.draws import mixture_draws


def sequential(length: int) -> np.ndarray:
    """Sample order of the files: 0 .. length - 1."""
    return np.arange(length)


def shuffled(length: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """Random permutation of 0 .. length - 1, another one each epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def length_grouped(
    order: Sequence[int], lengths: Sequence[int], batch_size: int, world: int = 1, accumulation: int = 1
) -> np.ndarray:
    """Length-grouped order: batches of one optimiser step hold samples of similar length.

    An order is cut into megabatches of one optimiser step; each is sorted by length, longest first, and dealt to its
    batches, every sample to the batch with the fewest tokens so far.

    Args:
        order: indices of the samples, as of `shuffled`.
        lengths: tokens of each sample, by index.
        batch_size: samples of one rank in one micro-batch.
        world: number of ranks.
        accumulation: micro-batches of one optimiser step.
    Source: upstream `train_sampler_patch.py`, `get_length_grouped_indices`.
    """
    batches = world * accumulation
    grouped: list[int] = []
    for first in range(0, len(order), batches * batch_size):
        megabatch = np.asarray(order)[first : first + batches * batch_size].tolist()
        megabatch.sort(key=lambda i: lengths[i], reverse=True)
        for batch in _even_batches(megabatch, lengths, batches):
            grouped.extend(batch)
    return np.array(grouped, dtype=np.int64)


def _even_batches(indices: list[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices dealt to `count` batches of equal size and about equal tokens; in turn where the sizes can't be equal."""
    if len(indices) % count:
        return [indices[i::count] for i in range(count)]
    batches: list[list[int]] = [[] for _ in range(count)]
    tokens = [0.0] * count
    for index in indices:
        shortest = tokens.index(min(tokens))
        batches[shortest].append(index)
        tokens[shortest] += lengths[index]
        if len(batches[shortest]) == len(indices) // count:
            tokens[shortest] = float("inf")
    return batches


def weighted(sizes: Sequence[int], weights: Sequence[float], seed: int = 0, epoch: int = 0) -> np.ndarray:
    """Weighted order: as many draws as there are samples, each from a dataset chosen by weight.

    A dataset whose samples have all been drawn starts again, so that no sample is drawn twice before all others of its
    dataset have been drawn once.

    Args:
        sizes: samples of each dataset.
        weights: weight of each dataset.
        seed: seed of the run.
        epoch: epoch from 0.
    Source: upstream `dataset.py`, `WeightedConcatDataset`, whose sampler gives numbers of datasets for samples.
    """
    draws = mixture_draws(sizes, weights, seed=seed, epoch=epoch, replacement=True)
    return np.fromiter(islice(draws, sum(sizes)), dtype=np.int64)


class RankBatches:
    """Batch sampler of one rank: batch k of an endless run over the epochs goes to rank k modulo world.

    A batch at the end of an epoch is filled up with the first samples of the next, so that every sample is drawn once
    an epoch, all batches are full, and all ranks have the same number of them.

    Args:
        order: sample order of an epoch, as a function of the epoch from 0; every epoch has the same number of samples.
        batch_size: samples of one micro-batch.
        rank: this rank.
        world: number of ranks.
    """

    def __init__(self, order: Callable[[int], Sequence[int]], batch_size: int, rank: int = 0, world: int = 1):
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self._loaded: tuple[int, Sequence[int]] = (0, order(0))
        if len(self._loaded[1]) == 0:
            raise ValueError("no training samples: the order of epoch 0 is empty")

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of this rank until every sample has been drawn once."""
        return -(-len(self._loaded[1]) // (self.batch_size * self.world))

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of each sample of this rank's micro-batch `step`, counted from the start of the run."""
        first = (step * self.world + self.rank) * self.batch_size
        return [self._place(position) for position in range(first, first + self.batch_size)]

    def _place(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, len(self._loaded[1]))
        if epoch != self._loaded[0]:
            self._loaded = (epoch, self.order(epoch))
        return epoch, int(self._loaded[1][offset])
