"""Order of training samples, by hand."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from paddle_internvl.training.order import (
    OrderedSamples,
    RankBatches,
    dataset_weights,
    length_grouped,
    mixture,
    sequential,
    shuffled,
    weighted,
)


def test_shuffled_is_a_permutation_by_seed_and_epoch():
    orders = {(seed, epoch): shuffled(20, seed, epoch).tolist() for seed in (0, 7) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(20)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert shuffled(20, 7, 1).tolist() == orders[7, 1]


def test_length_grouped_deals_sorted_megabatches():
    lengths = [10, 80, 30, 70, 20, 60, 40, 50, 15, 25]
    permutation = shuffled(10, seed=3, epoch=2).tolist()
    order = length_grouped(lengths, batch_size=2, world=2, accumulation=1, seed=3, epoch=2).tolist()
    for first in (0, 4):  # 4 samples of a step, longest first, dealt to the batch with fewest tokens
        a, b, c, d = sorted(permutation[first : first + 4], key=lambda i: -lengths[i])
        one, two = [a], [b]
        (two if lengths[b] < lengths[a] else one).append(c)
        (one if len(one) < 2 else two).append(d)
        assert order[first : first + 4] == one + two
    rest = sorted(permutation[8:], key=lambda i: -lengths[i])
    assert order[8:] == rest


def test_length_grouped_deals_an_uneven_rest_in_turn():
    lengths = [5, 4, 3, 2, 1]
    order = length_grouped(lengths, batch_size=4, world=2)  # one megabatch of 5 for 2 batches
    assert order.tolist() == [0, 2, 4, 1, 3]


def test_weights_are_sizes_or_their_square_roots():
    np.testing.assert_allclose(dataset_weights([100, 300]), [0.25, 0.75])
    np.testing.assert_allclose(dataset_weights([100, 400], use_data_resampling=True), [1 / 3, 2 / 3])


def test_weighted_draws_datasets_by_weight_and_samples_in_passes():
    order = weighted([300, 100], [1, 3], seed=2)
    assert len(order) == 400
    small = [index for index in order if index >= 300]
    assert 270 < len(small) < 330  # 3 of 4 draws
    passes = Counter(small).values()
    assert max(passes) - min(passes) <= 1
    assert weighted([300, 100], [1, 3], seed=2).tolist() == order.tolist()
    assert weighted([300, 100], [1, 3], seed=2, epoch=1).tolist() != order.tolist()


def test_mixture_gives_every_sample_to_one_worker():
    sizes = [13, 7, 5]
    draws = [list(mixture(sizes, sizes, seed=1, worker=worker, workers=3)) for worker in range(3)]
    assert sorted(sum(draws, [])) == list(range(25))
    assert [len(part) for part in draws] == [5 + 3 + 2, 4 + 2 + 2, 4 + 2 + 1]
    assert list(mixture(sizes, sizes, seed=1, worker=2, workers=3)) == draws[2]
    assert list(mixture(sizes, sizes, seed=1, epoch=1, worker=2, workers=3)) != draws[2]


def test_mixture_with_replacement_starts_again():
    first = list(islice(mixture([3, 2], [1, 1], replacement=True), 200))
    zeros = [index for index in first if index < 3]
    assert zeros[:3] == zeros[3:6] and sorted(zeros[:3]) == [0, 1, 2]
    assert list(mixture([1, 0], [1, 1], worker=1, workers=2, replacement=True)) == []  # nothing for this worker


def test_ordered_samples_reads_only_the_draw():
    class Samples:
        read = []

        def __getitem__(self, index):
            self.read.append(index)
            return index * 10

    samples = OrderedSamples(Samples(), mixture([3], [1], replacement=True))
    order = list(islice(mixture([3], [1], replacement=True), 8))
    assert samples[7] == order[7] * 10 and samples.dataset.read == [order[7]]
    assert samples[2] == order[2] * 10
    assert list(OrderedSamples("abc", [2, 0, 1])) == ["c", "a", "b"] and len(OrderedSamples("abc", [2, 0])) == 2


def test_rank_batches_wrap_into_the_next_epoch():
    batches = RankBatches(lambda epoch: sequential(5), batch_size=2)
    assert batches.batches_per_epoch == 3
    assert list(islice(batches.from_step(0), 5)) == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]
    assert list(islice(batches.from_step(3), 2)) == [[1, 2], [3, 4]]


def test_ranks_share_the_batches_of_accumulation():
    def order(epoch):
        return shuffled(10, 4, epoch)

    alone = RankBatches(order, 2)
    ranks = [RankBatches(order, 2, rank, world=2) for rank in range(2)]
    assert [ranks[k % 2][k // 2] for k in range(20)] == [alone[k] for k in range(20)]
    assert sum((alone[k] for k in range(5, 10)), []) == order(1).tolist()
    assert [each.batches_per_epoch for each in ranks] == [3, 3]


def test_rank_batches_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no training samples"):
        RankBatches(lambda epoch: [], 2)
