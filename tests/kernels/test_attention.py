"""The library's attention against the definition in numpy, on random and extreme numbers, wherever keys lie."""

import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_internvl.kernels import library
from paddle_internvl.ops import attention
from paddle_internvl.ops.dispatch import force
from tests.ops.test_attention import by_hand, require_equal_gradients

WILD = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def native(q, k, v, causal=True, mask=None, window=None, lengths=None):
    with force(attention="native"):
        return attention.attention(
            *map(paddle.to_tensor, (q, k, v)),
            causal=causal,
            key_mask=None if mask is None else paddle.to_tensor(mask),
            window=window,
            lengths=None if lengths is None else paddle.to_tensor(lengths),
        ).numpy()


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def shapes(draw):
    """(B, L, M, H, K, E): few queries and many, odd heads, keys beyond a panel."""
    length = draw(st.integers(1, 7) | st.integers(40, 60))
    total = length + draw(st.integers(0, 9) | st.integers(60, 80))
    kv = draw(st.integers(1, 3))
    return draw(st.integers(1, 3)), length, total, kv * draw(st.integers(1, 7)), kv, draw(st.integers(1, 40))


@WILD
@given(shape=shapes(), causal=st.booleans(), window=st.none() | st.integers(1, 90), seed=st.integers(0, 1 << 30))
def test_against_the_definition(isa, shape, causal, window, seed):
    b, length, total, heads, kv, e = shape
    window = window if causal else None
    q, k, v = numbers(seed, b, length, heads, e), numbers(seed + 1, b, total, kv, e), numbers(seed + 2, b, total, kv, e)
    expected = by_hand(q, k, v, causal, None, window)
    np.testing.assert_allclose(native(q, k, v, causal, None, window), expected, rtol=2e-5, atol=1e-5)


@WILD
@given(shape=shapes(), causal=st.booleans(), window=st.none() | st.integers(1, 90), seed=st.integers(0, 1 << 30))
def test_gradients_are_those_of_the_definition(isa, shape, causal, window, seed):
    b, length, total, heads, kv, e = shape
    mask = np.random.default_rng(seed).random((b, total)) < 0.6
    mask[:, 0] = mask[:, total - length :] = True  # every query sees its own key
    options = {"causal": causal, "window": window if causal else None, "key_mask": paddle.to_tensor(mask)}
    values = numbers(seed, b, length, heads, e), *(numbers(seed + i, b, total, kv, e) for i in (1, 2))
    require_equal_gradients("native", values, options, seed + 3)


@WILD
@given(shape=shapes(), seed=st.integers(0, 1 << 30))
def test_hidden_keys(isa, shape, seed):
    """Any keys may be hidden; a query whose keys all are gets zeros."""
    b, length, total, heads, kv, e = shape
    q, k, v = numbers(seed, b, length, heads, e), numbers(seed + 1, b, total, kv, e), numbers(seed + 2, b, total, kv, e)
    mask = np.random.default_rng(seed).random((b, total)) < 0.6
    out = native(q, k, v, mask=mask)
    with np.errstate(invalid="ignore"):
        expected = by_hand(q, k, v, True, mask, None)
    own = np.arange(total - length, total)
    sees = np.array([[row[: i + 1].any() for i in own] for row in mask])
    np.testing.assert_allclose(out[sees], expected[sees], rtol=2e-5, atol=1e-5)
    assert (out[~sees] == 0).all()


@pytest.mark.parametrize("e", [8, 72, 96, 256])
@pytest.mark.parametrize("length", [1, 130])
def test_long_rows(isa, length, e):
    """More keys than a chunk holds, and more queries than a block: the running maximum goes up and down."""
    q, k, v = numbers(0, 1, length, 6, e), numbers(1, 1, 1100, 2, e), numbers(2, 1, 1100, 2, e)
    k *= np.linspace(0.1, 5, 1100, dtype=np.float32)[None, :, None, None]
    k[:, 700:] *= 0.1
    np.testing.assert_allclose(native(q, k, v), by_hand(q, k, v, True, None, None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 50])
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e3, 1e15, 1e18])
def test_extreme_numbers(isa, size, length):
    """Scores that vanish, and scores of which the greatest takes all."""
    q, k = numbers(0, 1, length, 2, 16), numbers(1, 1, 80, 2, 16)
    q, k, v = (q * np.float32(size)), (k * np.float32(size)), numbers(2, 1, 80, 2, 16) * np.float32(1e30)
    expected = by_hand(q, k, v.astype(np.float64), False, None, None)
    np.testing.assert_allclose(native(q, k, v, causal=False), expected, rtol=1e-3, atol=1e24)


@pytest.mark.parametrize("length", [1, 50])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_what_is_not_finite_stays_so(isa, where, length):
    arrays = {"q": numbers(0, 1, length, 2, 16), "k": numbers(1, 1, 80, 2, 16), "v": numbers(2, 1, 80, 2, 16)}
    arrays[where][0, -1, 1] = np.nan
    out = native(**arrays)
    assert np.isnan(out[0, -1, 1]).all() and np.isfinite(out[0, -1, 0]).all()


@WILD
@given(
    kv=st.integers(1, 3), group=st.integers(1, 5), e=st.integers(1, 20), block=st.integers(1, 20),
    rows=st.lists(st.integers(1, 90), min_size=1, max_size=4), length=st.integers(1, 1) | st.integers(1, 60),
    window=st.none() | st.integers(1, 30), seed=st.integers(0, 1 << 30),
)  # fmt: skip
def test_blocks_of_a_cache_are_as_one_run(isa, kv, group, e, block, rows, length, window, seed):
    """Rows of different lengths in blocks in any order; what is behind a row's end is not looked at."""
    draw = np.random.default_rng(seed)
    totals = [n + length - 1 for n in rows]
    blocks = -(-max(totals) // block)
    table = draw.permutation(len(rows) * blocks).reshape(len(rows), blocks)
    k, v = (np.full((len(rows) * blocks, kv, block, e), np.nan, np.float32) for _ in range(2))
    q = numbers(seed, len(rows), length, kv * group, e)
    expected = []
    for row, total in enumerate(totals):
        own = [numbers(seed + 1 + row, total, kv, e), numbers(seed + 9 + row, total, kv, e)]
        for memory, each in zip((k, v), own):
            for p in range(total):
                memory[table[row, p // block], :, p % block] = each[p]
        expected.append(by_hand(q[row : row + 1], own[0][None], own[1][None], True, None, window))
    memory = [paddle.to_tensor(x.reshape(-1, e)) for x in (k, v)]
    out = library.run(
        "internvl_attention", paddle.to_tensor(q), *memory, paddle.to_tensor(table.astype(np.int64)),
        paddle.to_tensor(np.array(totals, np.int64)), None, kv, block, 0, window or 0, 1,
    )  # fmt: skip
    np.testing.assert_allclose(out.numpy(), np.concatenate(expected), rtol=2e-5, atol=1e-5)


def test_rows_of_different_lengths(isa):
    q, k, v = numbers(0, 3, 1, 6, 8), numbers(1, 3, 12, 2, 8), numbers(2, 3, 12, 2, 8)
    lengths = [12, 1, 7]
    for window in (None, 3):
        out = native(q, k, v, window=window, lengths=lengths)
        for row, n in enumerate(lengths):
            alone = by_hand(q[row : row + 1], k[row : row + 1, :n], v[row : row + 1, :n], True, None, window)
            np.testing.assert_allclose(out[row : row + 1], alone, rtol=2e-5, atol=1e-5)


def test_views_are_read_where_they_lie(isa):
    """q, k and v beside each other, as a product of all three leaves them."""
    qkv = paddle.to_tensor(numbers(0, 2, 30, 5, 16))
    q, k, v = qkv[:, 10:, :3], qkv[:, :, 3:4], qkv[:, :, 4:]
    with force(attention="native"):
        out = attention.attention(q, k, v, causal=True)
    expected = by_hand(*(x.numpy() for x in (q, k, v)), True, None, None)
    np.testing.assert_allclose(out.numpy(), expected, rtol=2e-5, atol=1e-5)


def run(*changes, **named):
    """The operator on [1, 2, 2, 8] queries over 5 keys, with some of its arguments changed."""
    q, k = paddle.ones([1, 2, 2, 8]), paddle.ones([1, 5, 1, 8])
    given = {"q": q, "k": k, "v": k, "table": None, "totals": None, "mask": None, "kv_heads": 1, "block": 0, "total": 5,
             "window": 0, "causal": 1} | named  # fmt: skip
    return library.run("internvl_attention", *given.values())


WRONG = {
    "heads must be a multiple": {"kv_heads": 3},
    "a row of 6 keys does not fit": {"total": 6},
    "a row of 1 keys does not fit 2 queries": {"total": 1},
    "heads as long as those of q": {"k": paddle.ones([1, 5, 1, 4])},
    "the rows of q": {"v": paddle.ones([2, 5, 1, 8])},
    "mask is shorter": {"mask": paddle.ones([1, 4], "bool")},
    "mask has another dtype": {"mask": paddle.ones([1, 5])},
    "q has another dtype": {"q": paddle.ones([1, 2, 2, 8], "float64")},
    "blocks need a table": {"k": paddle.ones([5, 8])},
    "names a block that there is not": {
        "k": paddle.ones([5, 8]), "v": paddle.ones([5, 8]), "table": paddle.to_tensor([[1]]), "block": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_an_error(isa, message):
    assert run().shape == [1, 2, 2, 8]
    with pytest.raises((ValueError, RuntimeError, OSError), match=message):
        run(**WRONG[message])
