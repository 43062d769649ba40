"""Draws of a mixture of datasets, by hand; `test_packing` holds them against upstream's."""

from itertools import islice

import numpy as np
import pytest

from paddle_internvl.training.draws import OrderedSamples, dataset_weights, mixture_draws
from paddle_internvl.training.mixture import DataError


def test_weights_are_sizes_or_their_square_roots():
    np.testing.assert_allclose(dataset_weights([100, 300]), [0.25, 0.75])
    np.testing.assert_allclose(dataset_weights([100, 400], use_data_resampling=True), [1 / 3, 2 / 3])


def test_mixture_gives_every_sample_to_one_worker():
    sizes = [13, 7, 5]
    draws = [list(mixture_draws(sizes, sizes, seed=1, worker=worker, workers=3)) for worker in range(3)]
    assert sorted(sum(draws, [])) == list(range(25))
    assert [len(part) for part in draws] == [5 + 3 + 2, 4 + 2 + 2, 4 + 2 + 1]
    assert list(mixture_draws(sizes, sizes, seed=1, worker=2, workers=3)) == draws[2]
    assert list(mixture_draws(sizes, sizes, seed=1, epoch=1, worker=2, workers=3)) != draws[2]


def test_mixture_with_replacement_starts_again():
    first = list(islice(mixture_draws([3, 2], [1, 1], replacement=True), 200))
    zeros = [index for index in first if index < 3]
    assert zeros[:3] == zeros[3:6] and sorted(zeros[:3]) == [0, 1, 2]
    assert list(mixture_draws([1, 0], [1, 1], worker=1, workers=2, replacement=True)) == []  # nothing for this worker


def test_ordered_samples_reads_only_the_draw():
    class Samples:
        read = []

        def __getitem__(self, index):
            self.read.append(index)
            return index * 10

    samples = OrderedSamples(Samples(), mixture_draws([3], [1], replacement=True))
    order = list(islice(mixture_draws([3], [1], replacement=True), 8))
    assert samples[7] == order[7] * 10 and samples.dataset.read == [order[7]]
    assert samples[2] == order[2] * 10
    assert list(OrderedSamples("abc", [2, 0, 1])) == ["c", "a", "b"] and len(OrderedSamples("abc", [2, 0])) == 2


def test_bad_samples_are_errors_or_skipped_and_listed():
    class Samples:
        def __getitem__(self, index):
            if index == 1:
                raise DataError("a.jsonl:2: not valid JSON")
            return index

    with pytest.raises(DataError, match="a.jsonl:2"):
        list(OrderedSamples(Samples(), range(3)))
    samples = OrderedSamples(Samples(), range(3), on_bad_sample="skip")
    assert list(samples) == [0, None, 2] and samples.skipped == ["a.jsonl:2: not valid JSON"]
    with pytest.raises(ValueError, match="on_bad_sample='replace'; use error or skip"):
        OrderedSamples(Samples(), [], on_bad_sample="replace")
