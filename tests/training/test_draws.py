"""Draws of a mixture of datasets, by hand; `test_packing` holds them against upstream's."""

from itertools import islice

import numpy as np

from paddle_internvl.training.draws import OrderedSamples, dataset_weights, mixture_draws
from paddle_internvl.training.reader import SampleReader


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

    dataset = Samples()
    samples = OrderedSamples(SampleReader(dataset), mixture_draws([3], [1], replacement=True))
    order = list(islice(mixture_draws([3], [1], replacement=True), 8))
    assert samples[7] == order[7] * 10 and dataset.read == [order[7]]
    assert list(islice(samples.from_draw(2), 3)) == [index * 10 for index in order[2:5]]
    letters = OrderedSamples(SampleReader("abc"), [2, 0, 1])
    assert list(letters.from_draw(0)) == list(letters) == ["c", "a", "b"] and len(letters) == 3
