"""Order of training samples, by hand."""

from collections import Counter

import pytest

from paddle_internvl.training.order import RankBatches, length_grouped, sequential, shuffled, weighted


def test_shuffled_is_a_permutation_by_seed_and_epoch():
    orders = {(seed, epoch): shuffled(20, seed, epoch).tolist() for seed in (0, 7) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(20)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert shuffled(20, 7, 1).tolist() == orders[7, 1]


def test_length_grouped_deals_sorted_megabatches():
    lengths = [10, 80, 30, 70, 20, 60, 40, 50, 15, 25]
    permutation = shuffled(10, seed=3, epoch=2).tolist()
    order = length_grouped(permutation, lengths, batch_size=2, world=2, accumulation=1).tolist()
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
    order = length_grouped(range(5), lengths, batch_size=4, world=2)  # one megabatch of 5 for 2 batches
    assert order.tolist() == [0, 2, 4, 1, 3]


def test_weighted_draws_datasets_by_weight_and_samples_in_passes():
    order = weighted([300, 100], [1, 3], seed=2)
    assert len(order) == 400
    small = [index for index in order if index >= 300]
    assert 270 < len(small) < 330  # 3 of 4 draws
    passes = Counter(small).values()
    assert max(passes) - min(passes) <= 1
    assert weighted([300, 100], [1, 3], seed=2).tolist() == order.tolist()
    assert weighted([300, 100], [1, 3], seed=2, epoch=1).tolist() != order.tolist()


def test_rank_batches_wrap_into_the_next_epoch():
    batches = RankBatches(lambda epoch: sequential(5), batch_size=2)
    assert batches.batches_per_epoch == 3
    places = [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4), (1, 0)], [(1, 1), (1, 2)], [(1, 3), (1, 4)]]
    assert [batches[k] for k in range(5)] == places
    assert batches[1] == places[1]


def test_ranks_share_the_batches_of_accumulation():
    def order(epoch):
        return shuffled(10, 4, epoch)

    alone = RankBatches(order, 2)
    ranks = [RankBatches(order, 2, rank, world=2) for rank in range(2)]
    assert [ranks[k % 2][k // 2] for k in range(20)] == [alone[k] for k in range(20)]
    assert sum((alone[k] for k in range(5, 10)), []) == [(1, index) for index in order(1)]
    assert [each.batches_per_epoch for each in ranks] == [3, 3]


def test_rank_batches_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no training samples"):
        RankBatches(lambda epoch: [], 2)
