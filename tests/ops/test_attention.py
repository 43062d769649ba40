"""Attention's backends against the definition written in numpy, on random shapes and masks."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.kernels import library
from paddle_internvl.ops import attention, attention_by_heads


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


@pytest.mark.parametrize("backend", ["plain", "chunked", "heads", NATIVE])
@settings(max_examples=60, deadline=None)
@given(problem=problems(), rows=st.integers(1, 4))
def test_against_the_definition(backend, problem, rows):
    q, k, v, causal, mask, window = problem
    tensors = [paddle.to_tensor(x) for x in (q, k, v)]
    key_mask = None if mask is None else paddle.to_tensor(mask)
    with pytest.MonkeyPatch.context() as patch, attention.use_backend(backend), paddle.no_grad():
        patch.setattr(attention, "_ROWS", rows)  # small blocks, so that short sequences have several
        patch.setattr(attention, "worth", lambda q, total: True)
        patch.setattr(attention_by_heads, "_SCORES", rows)
        out = attention.attention(*tensors, causal=causal, key_mask=key_mask, window=window)
    np.testing.assert_allclose(out.numpy(), by_hand(q, k, v, causal, mask, window), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ["plain", "chunked", "heads", NATIVE])
def test_fully_padded_queries_stay_finite(backend):
    q = paddle.randn([1, 4, 2, 8])
    mask = paddle.to_tensor([[False, False, True, True]])
    with attention.use_backend(backend), paddle.no_grad():
        assert bool(attention.attention(q, q, q, causal=True, key_mask=mask).isfinite().all())


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_agree(causal):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 300, h, 8)).astype(np.float32) for h in (4, 2, 2))
    gradients = {}
    for backend in ("plain", "chunked"):
        tensors = [paddle.to_tensor(x, stop_gradient=False) for x in (q, k, v)]
        with attention.use_backend(backend):
            attention.attention(*tensors, causal=causal).square().sum().backward()
        gradients[backend] = [t.grad.numpy() for t in tensors]
    for plain, chunked in zip(*gradients.values()):
        np.testing.assert_allclose(plain, chunked, rtol=1e-4, atol=1e-4)


def test_unknown_backend():
    with (
        pytest.raises(ValueError, match="'sparse' is not known.*flash, native, heads, chunked, plain"),
        attention.use_backend("sparse"),
    ):
        pass
