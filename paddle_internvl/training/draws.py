"""Draw order of a mixture of datasets, which packing takes its samples from.

The order is a function of (seed, epoch, worker), so that a resumed run sees the samples of an uninterrupted one. Numpy
only. Draws are indices into the datasets put one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np


def dataset_weights(sizes: Sequence[int], use_data_resampling: bool = False) -> np.ndarray:
    """Sampling weight of each dataset: its size, or the square root of it with `use_data_resampling`; they sum to 1.

    Source: upstream `internvl_chat_finetune.py`, `build_datasets`.
    """
    weights = np.sqrt(sizes) if use_data_resampling else np.asarray(sizes, dtype=np.float64)
    return weights / weights.sum()


def mixture_draws(
    sizes: Sequence[int],
    weights: Sequence[float],
    *,
    seed: int = 0,
    epoch: int = 0,
    worker: int = 0,
    workers: int = 1,
    replacement: bool = False,
) -> Iterator[int]:
    """Draw order of a mixture of datasets, for one data worker.

    Each dataset is shuffled, and the worker owns every `workers`-th sample of it. A draw chooses a dataset by weight
    and takes its next sample. A dataset that runs dry starts again with `replacement`; without it the dataset leaves
    the mixture, and the draw that ran dry chooses among the others with equal probability.

    Args:
        sizes: samples of each dataset.
        weights: weight of each dataset; any scale.
        seed: seed of the run; with seed 0 and epoch 0 the draws are upstream's.
        epoch: epoch from 0.
        worker: global number of the data worker, rank * workers of a rank + worker of the rank.
        workers: data workers of all ranks.
        replacement: start a dataset again instead of leaving it; the order never ends.
    Yields:
        Indices into the datasets put one after the other.
    Source: upstream `dataset_packed.py`, `PackedDataset.__iter__` and `next_data`.
    """
    firsts = np.cumsum([0, *sizes])
    # numpy pads an entropy list with zeros: default_rng([n, 0, 0]) is upstream's default_rng(n)
    shuffles = [np.random.default_rng([number, seed, epoch]).permutation(size) for number, size in enumerate(sizes)]
    parts = [first + shuffle[worker::workers] for first, shuffle in zip(firsts, shuffles)]
    rng = np.random.default_rng([worker, seed, epoch])
    uniform = np.random.RandomState([seed, epoch] if epoch else seed)  # upstream: numpy's global generator
    active = [iter(part) for part in parts]
    shares = list(np.asarray(weights, dtype=np.float64))
    while active:
        chosen = rng.choice(len(active), p=np.array(shares) / sum(shares))
        while (index := next(active[chosen], None)) is None:
            if replacement and len(parts[chosen]):
                active[chosen] = iter(parts[chosen])
                continue
            for column in (active, parts, shares):
                column.pop(chosen)
            if not active:
                return
            chosen = uniform.choice(len(active))
        yield int(index)


class OrderedSamples:
    """Samples of one epoch in a given order; `[draw]` is the sample of that draw, so that packing can resume.

    Args:
        reader: a `SampleReader`.
        order: indices into the dataset in the order of the draws; may be endless.
        epoch: epoch of the samples' random choices.
    """

    def __init__(self, reader, order: Iterable[int], epoch: int = 0):
        self._reader, self._epoch = reader, epoch
        self._remaining = iter(order)
        self._indices: list[int] = []

    def from_draw(self, draw: int) -> Iterator[dict | None]:
        """Samples from a draw on, read ahead by the reader's workers; None for a skipped one."""
        return self._reader.read(self._places(draw))

    def __getitem__(self, draw: int) -> dict | None:
        return self._reader.read_here((self._epoch, self._index(draw)))

    def __len__(self) -> int:
        """Number of draws; does not return for an endless order."""
        self._indices.extend(self._remaining)
        return len(self._indices)

    def _index(self, draw: int) -> int:
        self._indices.extend(islice(self._remaining, max(0, draw + 1 - len(self._indices))))
        return self._indices[draw]

    def _places(self, draw: int) -> Iterator[tuple[int, int]]:
        for number in count(draw):
            try:
                index = self._index(number)
            except IndexError:
                return
            yield self._epoch, index
