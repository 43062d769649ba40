"""Implementations of attention against the definition written in numpy, on random shapes, masks and segments."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.kernels import library
from paddle_internvl.ops import attention
from paddle_internvl.ops.dispatch import force


def by_hand(q, k, v, causal, key_mask, window):
    """softmax(q k^T / sqrt(E)) v, head by head, in float64."""
    b, length, heads, e = q.shape
    total, group = k.shape[1], heads // k.shape[2]
    out = np.zeros(q.shape)
    for row in range(b):
        for h in range(heads):
            for i in range(length):
                scores = k[row, :, h // group].astype(np.float64) @ q[row, i, h] / np.sqrt(e)
                allowed = np.ones(total, bool) if not causal else np.arange(total) <= total - length + i
                if window is not None:
                    allowed &= np.arange(total) > total - length + i - window
                if key_mask is not None:
                    allowed &= key_mask[row]
                weights = np.where(allowed, np.exp(scores - scores[allowed].max(initial=-np.inf)), 0)
                out[row, i, h] = weights / weights.sum() @ v[row, :, h // group]
    return out


@st.composite
def problems(draw):
    kv = draw(st.integers(1, 3))
    length = draw(st.integers(1, 9))
    total = length + draw(st.integers(0, 5))
    shape = draw(st.integers(1, 3)), length, kv * draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = rng.normal(size=shape).astype(np.float32)
    k, v = rng.normal(size=(2, shape[0], total, kv, shape[3])).astype(np.float32)
    causal = draw(st.booleans())
    mask = None
    if draw(st.booleans()):  # left padding, at most up to the first query
        padding = [draw(st.integers(0, total - length if causal else total - 1)) for _ in range(shape[0])]
        mask = np.arange(total) >= np.array(padding)[:, None]
    window = draw(st.integers(1, total + 2)) if causal and mask is None and draw(st.booleans()) else None
    return q, k, v, causal, mask, window


NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason())
)


@pytest.mark.parametrize("implementation", ["reference", "blockwise", NATIVE])
@settings(max_examples=60, deadline=None)
@given(problem=problems(), rows=st.integers(1, 4))
def test_against_the_definition(implementation, problem, rows):
    q, k, v, causal, mask, window = problem
    tensors = [paddle.to_tensor(x) for x in (q, k, v)]
    key_mask = None if mask is None else paddle.to_tensor(mask)
    with pytest.MonkeyPatch.context() as patch, force(attention=implementation), paddle.no_grad():
        patch.setattr(attention, "_ROWS", rows)  # small blocks, so that short sequences have several
        out = attention.attention(*tensors, causal=causal, key_mask=key_mask, window=window)
    np.testing.assert_allclose(out.numpy(), by_hand(q, k, v, causal, mask, window), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", ["reference", "blockwise", NATIVE])
def test_fully_padded_queries_stay_finite(implementation):
    q = paddle.randn([1, 4, 2, 8])
    mask = paddle.to_tensor([[False, False, True, True]])
    with force(attention=implementation), paddle.no_grad():
        assert bool(attention.attention(q, q, q, causal=True, key_mask=mask).isfinite().all())


def require_equal_gradients(implementation: str, values, options: dict, seed: int) -> None:
    """Fail where gradients of q, k and v differ from those of the reference, which Paddle differentiates."""
    slope = paddle.to_tensor(np.random.default_rng(seed).normal(size=values[0].shape).astype(np.float32))
    gradients = []
    for form in ("reference", implementation):
        tensors = [paddle.to_tensor(x, stop_gradient=False) for x in values]
        with force(attention=form), paddle.enable_grad():
            (attention.attention(*tensors, **options) * slope).sum().backward()
        gradients.append([tensor.grad.numpy() for tensor in tensors])
    for expected, actual in zip(*gradients):
        np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("implementation", ["blockwise", NATIVE])
@settings(max_examples=30, deadline=None)
@given(problem=problems(), factor=st.sampled_from([1, 40]), segments=st.booleans())
def test_gradients_are_those_of_the_definition(implementation, problem, factor, segments):
    """Of short and (times `factor`) long sequences, hidden keys, windows, and packs of segments."""
    q, k, v, causal, mask, window = problem
    q, k, v = (np.tile(x, (1, factor, 1, 1)) for x in (q, k, v))
    options = {"causal": causal, "window": window, "key_mask": None if mask is None else np.tile(mask, factor)}
    if segments and causal and mask is None and q.shape[1] == k.shape[1]:
        options["segment_ids"] = np.sort(np.random.default_rng(0).integers(0, 3, q.shape[:2]))
    options |= {name: paddle.to_tensor(x) for name, x in options.items() if isinstance(x, np.ndarray)}
    require_equal_gradients(implementation, (q, k, v), options, seed=1)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("implementation", ["reference", "blockwise", NATIVE])
def test_packed_segments_are_separate(implementation, window):
    """Samples of a pack attend to themselves: as if each were alone."""
    rng = np.random.default_rng(1)
    q = rng.normal(size=(2, 12, 4, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 12, 2, 8)).astype(np.float32)
    segments = np.array([[0] * 5 + [1] * 1 + [2] * 6, [0] * 12])
    with pytest.MonkeyPatch.context() as patch, force(attention=implementation), paddle.no_grad():
        patch.setattr(attention, "_ROWS", 4)
        tensors = map(paddle.to_tensor, (q, k, v))
        out = attention.attention(*tensors, causal=True, window=window, segment_ids=paddle.to_tensor(segments)).numpy()
    for row, own in enumerate(segments):
        for segment in set(own):
            part = np.flatnonzero(own == segment)
            alone = by_hand(*(x[row : row + 1, part] for x in (q, k, v)), True, None, window)
            np.testing.assert_allclose(out[row : row + 1, part], alone, rtol=2e-5, atol=2e-5)
