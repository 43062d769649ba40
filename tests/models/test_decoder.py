"""Invariants of the decoder: a cache, a batch or padding changes nothing."""

import numpy as np
import paddle
import pytest

from paddle_internvl.models.decoder import count_positions
from paddle_internvl.models.kv_cache import ContiguousKVCache

LENGTH = 30  # below dynamic_gqa's max_position_embeddings, where the rotary base is fixed


@pytest.fixture
def ids():
    return paddle.to_tensor(np.random.default_rng(0).integers(3, 1000, (2, LENGTH)))


@pytest.mark.parametrize("cuts", [(1,), (7, 8, 20), tuple(range(1, LENGTH))])
def test_cached_equals_uncached(decoder, ids, cuts):
    whole = decoder(ids).numpy()
    cache = decoder.new_cache(2, LENGTH)
    parts = [decoder(ids[:, a:b], cache=cache).numpy() for a, b in zip((0, *cuts), (*cuts, LENGTH))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-4, atol=2e-5)
    assert cache.length == LENGTH


def test_left_padding_changes_nothing(decoder, ids):
    whole = decoder(ids[:1]).numpy()
    padding = paddle.full([1, 9], 2, "int64")
    mask = paddle.concat([paddle.zeros([1, 9], "int64"), paddle.ones([1, LENGTH], "int64")], axis=1)
    padded = decoder(paddle.concat([padding, ids[:1]], axis=1), attention_mask=mask)
    np.testing.assert_allclose(padded[:, 9:].numpy(), whole, rtol=1e-4, atol=2e-5)


def test_right_padding_and_batch_change_nothing(decoder, ids):
    mask = paddle.to_tensor(np.arange(LENGTH)[None] < np.array([[LENGTH], [12]])).astype("int64")
    both = decoder(ids, attention_mask=mask).numpy()
    np.testing.assert_allclose(both[:1], decoder(ids[:1]).numpy(), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(both[1:, :12], decoder(ids[1:, :12]).numpy(), rtol=1e-4, atol=2e-5)


def test_packed_samples_are_separate(models, case, decoder):
    """Samples of a pack, beyond the length that dynamic rope was trained for too, as if each were alone."""
    draw = np.random.default_rng(1)
    samples = [draw.integers(3, 1000, n) for n in (5, 61, 1, 17)]
    ids = paddle.to_tensor(np.concatenate(samples)[None])
    positions = paddle.to_tensor(np.concatenate([np.arange(len(sample)) for sample in samples])[None])
    segments = paddle.to_tensor(np.repeat(np.arange(4), [len(sample) for sample in samples])[None])
    packed = decoder(ids, position_ids=positions, segment_ids=segments)[0].numpy()
    alone = [decoder(paddle.to_tensor(sample[None]))[0].numpy() for sample in samples]
    expected = np.concatenate(alone)
    assert np.abs(packed - expected).max() < 1e-6 * np.abs(expected).max() + 2e-5


def test_segments_need_positions_and_no_mask(decoder, ids):
    with pytest.raises(ValueError, match="segment_ids need position_ids"):
        decoder(ids, segment_ids=paddle.zeros_like(ids))


def test_last_only(decoder, ids):
    np.testing.assert_allclose(decoder(ids, last_only=True).numpy(), decoder(ids)[:, -1:].numpy(), rtol=1e-5, atol=1e-5)


def test_no_position_sees_a_later_one(decoder, ids):
    changed = ids.clone()
    changed[:, 20:] = 5
    np.testing.assert_array_equal(decoder(changed)[:, :20].numpy(), decoder(ids)[:, :20].numpy())


def test_positions_as_upstream_counts_them():
    mask = paddle.to_tensor([[False, False, True, True], [True, True, True, True]])
    assert count_positions(mask, 2, 4).tolist() == [[1, 1, 0, 1], [0, 1, 2, 3]]
    assert count_positions(None, 1, 3).tolist() == [[0, 1, 2]]


def test_cache_capacity():
    cache = ContiguousKVCache(1, 1, 4, 1, 2, "float32")
    cache.extend(0, paddle.ones([1, 3, 1, 2]), paddle.ones([1, 3, 1, 2]))
    cache.advance(3)
    with pytest.raises(ValueError, match="holds 4 positions, and 5 are needed"):
        cache.extend(0, paddle.ones([1, 2, 1, 2]), paddle.ones([1, 2, 1, 2]))


def test_cache_rows():
    cache = ContiguousKVCache(1, 3, 2, 1, 1, "float32")
    rows = paddle.to_tensor([1.0, 2.0, 3.0]).reshape([3, 1, 1, 1])
    cache.extend(0, rows, rows)
    cache.advance(1)
    cache.keep_rows(paddle.to_tensor([2, 0]))
    k, _ = cache.extend(0, paddle.zeros([2, 1, 1, 1]), paddle.zeros([2, 1, 1, 1]))
    assert k[:, 0].flatten().tolist() == [3.0, 1.0]
