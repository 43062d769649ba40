"""Norms, activations and rotary embedding of the library against float64 and against Paddle's own."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_internvl.kernels import library
from paddle_internvl.ops import activations, dispatch, norms, rope

WILD = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXTREME = np.array([0, -0.0, 1e-45, -1e-40, 1e-30, 1, -1, 5, -5, 20, -20, 87, -87, 89, 104, -104, 1e4, -1e30, 1e30,
                    np.inf, -np.inf, np.nan], np.float32)  # fmt: skip


def erf(x: np.ndarray) -> np.ndarray:
    """In float64, by Paddle's kernel."""
    return paddle.erf(paddle.to_tensor(x)).numpy()


def elements(x, y=None, scale=None, what=0) -> np.ndarray:
    tensors = (None if each is None else paddle.to_tensor(each) for each in (x, y, scale))
    return library.run("internvl_elements", *tensors, what).numpy()


@WILD
@given(
    count=st.integers(1, 70) | st.integers(4090, 4100),
    size=st.sampled_from([0.1, 1.0, 10.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_gelu(isa, count, size, seed):
    x = (np.random.default_rng(seed).normal(size=count) * size).astype(np.float32)
    exact = x * 0.5 * (1 + erf(x.astype(np.float64) / np.sqrt(2)))
    np.testing.assert_allclose(elements(x), exact, rtol=1e-5, atol=2e-6)


@WILD
@given(
    count=st.integers(1, 70) | st.integers(4090, 4100), size=st.sampled_from([0.1, 1.0, 30.0]), seed=st.integers(0, 99)
)
def test_swiglu(isa, count, size, seed):
    gate, up = (np.random.default_rng(seed).normal(size=(2, count)) * size).astype(np.float32)
    wide = gate.astype(np.float64)
    np.testing.assert_allclose(elements(gate, up, what=1), wide / (1 + np.exp(-wide)) * up, rtol=1e-5, atol=1e-30)


def test_extreme_numbers(isa):
    """As float64 has it: infinities and NaN come out where they go in, and nothing else is made of them."""
    wide = EXTREME.astype(np.float64)
    with np.errstate(all="ignore"):
        gelu, silu = wide * 0.5 * (1 + erf(wide / np.sqrt(2))), wide / (1 + np.exp(-wide))
        same = EXTREME[np.isfinite(EXTREME)]
    ones = np.ones_like(EXTREME)
    finite = np.isfinite(EXTREME)
    np.testing.assert_allclose(elements(EXTREME)[finite], gelu[finite], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(elements(EXTREME, ones, what=1)[finite], silu[finite], rtol=1e-5, atol=1e-37)
    assert np.isnan(elements(EXTREME)[-1]) and np.isnan(elements(EXTREME, ones, what=1)[-1])
    assert elements(EXTREME)[-3] == np.inf and len(same) == len(EXTREME) - 3


@WILD
@given(rows=st.integers(1, 5), width=st.integers(1, 50), seed=st.integers(0, 99))
def test_scaled_sum(isa, rows, width, seed):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(2, rows, width)).astype(np.float32)
    scale = draw.normal(size=width).astype(np.float32)
    np.testing.assert_allclose(elements(x, y, scale, 2), x + y * scale, rtol=1e-5, atol=1e-6)


def norm(x, weight, bias=None, centred=0, eps=1e-6):
    tensors = (None if each is None else paddle.to_tensor(each) for each in (x, weight, bias))
    return library.run("internvl_norm", *tensors, eps, centred).numpy()


@WILD
@given(rows=st.integers(1, 5), width=st.integers(1, 70), size=st.sampled_from([1e-15, 1e-3, 1.0, 1e4, 1e15]),
       shift=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 99))  # fmt: skip
def test_norms(isa, rows, width, size, shift, seed):
    draw = np.random.default_rng(seed)
    x = ((draw.normal(size=(rows, width)) + shift) * size).astype(np.float32)
    weight, bias = draw.normal(size=(2, width)).astype(np.float32)
    wide = x.astype(np.float64)
    rms = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(norm(x, weight), rms, rtol=2e-5, atol=1e-6)
    centre = wide - wide.mean(-1, keepdims=True)
    centred = centre / np.sqrt((centre**2).mean(-1, keepdims=True) + 1e-6) * weight + bias
    if width > 1:  # else all that is left is the rounding of the mean
        np.testing.assert_allclose(norm(x, weight, bias, 1), centred, rtol=1e-4, atol=1e-4)


def test_norm_of_a_sum(isa):
    x, y, weight = paddle.randn([3, 4, 21]), paddle.randn([3, 4, 21]), paddle.randn([21])
    total, normalised = library.run("internvl_add_norm", x, y, weight, None, 1e-6, 0)
    np.testing.assert_array_equal(total.numpy(), (x + y).numpy())
    np.testing.assert_allclose(
        normalised.numpy(), norms.reference_rms_norm(x + y, weight, 1e-6).numpy(), rtol=1e-5, atol=1e-6
    )


@WILD
@given(b=st.integers(1, 3), length=st.integers(1, 5), heads=st.integers(1, 5), half=st.integers(2, 40))
def test_rope(isa, b, length, heads, half):
    tables = rope.Rope(head_dim=2 * half, theta=1e4, kind="dynamic", factor=2.0, trained_length=3)
    cos, sin = tables.tables(paddle.to_tensor(np.random.default_rng(half).integers(0, 50, (b, length))))
    x = paddle.randn([b, length, heads, 2 * half])
    with dispatch.force(rope="native"):
        turned = rope.apply(x, cos, sin)
    np.testing.assert_allclose(turned.numpy(), rope.reference_rope(x, cos, sin).numpy(), rtol=1e-5, atol=1e-6)


def test_operators_are_their_references(isa):
    x, y = paddle.randn([3, 40]), paddle.randn([3, 40])
    np.testing.assert_allclose(activations.gelu(x).numpy(), F.gelu(x).numpy(), rtol=1e-5, atol=1e-6)
    with dispatch.force(swiglu="reference"):
        expected = activations.swiglu(x, y)
    np.testing.assert_allclose(activations.swiglu(x, y).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [[0, 8], [2, 0, 8]])
def test_nothing_is_nothing(isa, shape):
    assert library.run("internvl_elements", paddle.empty(shape), None, None, 0).shape == shape
    assert library.run("internvl_norm", paddle.empty(shape), paddle.ones([8]), None, 1e-6, 0).shape == shape


def test_what_does_not_fit_is_an_error(isa):
    x = paddle.ones([2, 6])
    for inputs, message in (
        (("internvl_norm", x, paddle.ones([5]), None, 1e-6, 0), "as wide as x"),
        (("internvl_add_norm", x, paddle.ones([2, 5]), paddle.ones([6]), None, 1e-6, 0), "the shape of x"),
        (("internvl_elements", x, None, None, 1), "as `what` needs it"),
        (("internvl_elements", x, paddle.ones([5]), None, 1), "y has 5 numbers, 12 are needed"),
        (("internvl_rope", x.reshape([1, 2, 2, 3]), x, x), "even E"),
    ):
        with pytest.raises((ValueError, RuntimeError, OSError), match=message):
            library.run(*inputs)
