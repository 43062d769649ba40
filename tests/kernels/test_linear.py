"""Matrix products of the library against float64: every way weights are held, odd shapes, extreme numbers."""

import ml_dtypes
import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.quant_layout import pack_nibbles
from paddle_internvl.kernels import library
from paddle_internvl.ops.linear import NativeLinear, VectorLinear, WideningEmbedding

WILD = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = ("float32", "bfloat16", "int8", "int4")
# the kernels work on 1024 rows of W at a time, on AMX tiles on 512 of more than 1280
DEEP = st.integers(1, 70) | st.integers(1020, 1030) | st.integers(1281, 1290)
SHAPES = {"m": st.integers(1, 45), "k": DEEP, "n": st.integers(1, 140), "seed": st.integers(0, 99)}


class Held:
    """A random weight as the kernels take it, and what it means in float64.

    Args:
        group: rows that share a scale; -1: all. offsets: whether integers have them.
    """

    def __init__(self, kind: str, k: int, n: int, rng, group: int = -1, offsets: bool = True):
        self.scales = self.offsets = None
        self.group = group
        if kind in ("float32", "bfloat16"):
            values = rng.normal(size=(k, n)).astype(np.float32 if kind == "float32" else ml_dtypes.bfloat16)
            self.means = values.astype(np.float64)
            self.weight = paddle.to_tensor(values.astype(np.float32)).astype(kind)
            return
        most = 128 if kind == "int8" else 8
        q = rng.integers(-most, most, (k, n)).astype(np.int8)
        rows = k if group == -1 else group
        groups = -(-k // rows)
        scales = rng.uniform(0.1, 1, (groups, n)).astype(np.float32)
        added = rng.normal(size=(groups, n)).astype(np.float32) if offsets else np.zeros((groups, n), np.float32)
        of = np.arange(k) // rows
        self.means = q * scales[of].astype(np.float64) + added[of]
        stored = q if kind == "int8" else pack_nibbles(np.concatenate([q, np.zeros((k % 2, n), np.int8)]))
        self.weight, self.scales = paddle.to_tensor(stored), paddle.to_tensor(scales)
        self.offsets = paddle.to_tensor(added) if offsets else None


def product(x, held, bias=None, residual=None, layer_scale=None, up=None, activation=0, bfloat16=False, int8=False):
    """The operator."""
    rest = (None if each is None else paddle.to_tensor(each) for each in (bias, residual, layer_scale))
    more = (None, None, None) if up is None else (up.weight, up.scales, up.offsets)
    weight = (held.weight, held.scales, held.offsets)
    how = (held.group, activation, int(bfloat16), int(int8))
    return library.run("internvl_linear", paddle.to_tensor(x), *weight, *rest, *more, *how).numpy()


def close(ours, exact, size):
    """Within float32's rounding of sums whose terms' magnitudes add up to `size`."""
    assert (np.abs(ours - exact) <= 2e-6 * size + 1e-30).all(), np.abs((ours - exact) / size).max()


@WILD
@given(kind=st.sampled_from(KINDS), group=st.sampled_from([-1, 32, 64, 96]), offsets=st.booleans(), **SHAPES)
def test_products(isa, kind, group, offsets, m, k, n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, k)).astype(np.float32)
    held = Held(kind, k, n, rng, group, offsets)
    size = np.abs(x).astype(np.float64) @ np.abs(held.means) + np.abs(x).sum(1, keepdims=True) * 8
    close(product(x, held), x.astype(np.float64) @ held.means, size)


@WILD
@given(
    kind=st.sampled_from(KINDS), activation=st.sampled_from([0, 1]), given_=st.tuples(*[st.booleans()] * 3), **SHAPES
)
def test_what_follows_a_product(isa, kind, activation, given_, m, k, n, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(m, k)) / np.sqrt(k)).astype(np.float32)
    held = Held(kind, k, n, rng)
    bias, residual, scale = (
        rng.normal(size=shape).astype(np.float32) if wanted else None for shape, wanted in zip((n, (m, n), n), given_)
    )
    y = x.astype(np.float64) @ held.means + (0 if bias is None else bias)
    size = np.abs(x).astype(np.float64) @ np.abs(held.means) + 10
    if activation:
        y = y * 0.5 * (1 + paddle.erf(paddle.to_tensor(y / np.sqrt(2))).numpy())
    y = y * (1 if scale is None else scale) + (0 if residual is None else residual)
    close(product(x, held, bias, residual, scale, activation=activation), y, size * (1 if scale is None else 5))


@WILD
@given(kind=st.sampled_from(KINDS), **SHAPES)
def test_swiglu(isa, kind, m, k, n, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(m, k)) / np.sqrt(k)).astype(np.float32)
    gate, up = Held(kind, k, n, rng), Held(kind, k, n, rng)
    a, b = x.astype(np.float64) @ gate.means, x.astype(np.float64) @ up.means
    size = (np.abs(x).astype(np.float64) @ (np.abs(gate.means) + np.abs(up.means)) + 10) * (1 + np.abs(a) + np.abs(b))
    close(product(x, gate, up=up, activation=2), a / (1 + np.exp(-np.clip(a, -700, 700))) * b, size)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3, 5, 9, 16, 30])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_row_and_column(isa, stored, rows, number):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(rows, 40)).astype(np.float32), rng.normal(size=(40, 270)).astype(np.float32)
    x[rows - 1, 7] = number
    w[3, 69] = w[39, 268] = number
    held = Held(stored, 40, 270, rng)
    held.weight = paddle.to_tensor(w).astype(stored)
    with np.errstate(invalid="ignore"):
        exact = x.astype(np.float64) @ held.weight.astype("float32").numpy()
    ours = product(x, held)
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(exact))
    if isa != "amx" or rows <= 16 or stored == "float32":  # three bfloat16 parts of an infinity's product may be NaN
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(exact))
        np.testing.assert_array_equal(ours[np.isinf(exact)], exact[np.isinf(exact)])


@pytest.mark.parametrize("rows", [1, 30])
def test_the_largest_and_the_smallest_numbers(isa, rows):
    x, w = np.zeros((rows, 3), np.float32), np.zeros((3, 33), np.float32)
    x[:], w[0], w[1], w[2] = [1e8, 1e-30, 1e-40], 1e30, 1e-8, 1e5
    held = Held("float32", 3, 33, np.random.default_rng(0))
    held.weight = paddle.to_tensor(w)
    np.testing.assert_allclose(product(x, held), x.astype(np.float64) @ w, rtol=1e-6)
    x[:, 0] = 0  # what is left is a denormal and a small number
    np.testing.assert_allclose(product(x, held), x.astype(np.float64) @ w, rtol=1e-5)
    assert np.isinf(product(np.full((rows, 3), 3e38, np.float32), held)).all()


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_native_linear_layer(isa, stored):
    rng = np.random.default_rng(0)
    plain = paddle.nn.Linear(96, 40)
    plain.weight.astype(stored)._share_buffer_to(plain.weight)
    x = paddle.to_tensor(rng.normal(size=(2, 7, 192)).astype(np.float32))[:, :, ::2]  # not contiguous
    expected = x.numpy() @ plain.weight.astype("float32").numpy() + plain.bias.numpy()
    np.testing.assert_allclose(NativeLinear(plain)(x).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_vector_linear_layer(rows):
    plain = paddle.nn.Linear(96, 40)
    x = paddle.randn([rows, 1, 96])
    np.testing.assert_allclose(VectorLinear(plain)(x).numpy(), plain(x).numpy(), rtol=1e-4, atol=1e-5)


def test_layers_for_inference_refuse_gradients():
    plain = paddle.nn.Linear(3, 2)
    x = paddle.ones([4, 3])
    x.stop_gradient = False
    with paddle.enable_grad(), pytest.raises(ValueError, match="load it with trainable=True"):
        NativeLinear(plain)(x)


def test_widening_embedding():
    plain = paddle.nn.Embedding(5, 4)
    plain.weight.astype("bfloat16")._share_buffer_to(plain.weight)
    rows = WideningEmbedding(plain)(paddle.to_tensor([[1, 2]]))
    assert rows.dtype == paddle.float32
    np.testing.assert_array_equal(rows[0].numpy(), plain.weight.astype("float32").numpy()[[1, 2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": lambda w: w[:3]}, "the weight of 4 inputs must have 4 rows"),
        ({"weight": lambda w: w.astype("float64")}, "a weight must be float32"),
        ({"weight": lambda w: w.astype("int8")}, "scales belong to integers"),
        ({"x": lambda x: x.astype("float64")}, "x has another dtype"),
        ({"bias": lambda _: paddle.ones([3])}, "bias has 3 numbers, 5 are needed"),
        ({"residual": lambda _: paddle.ones([1, 5])}, "residual has 5 numbers, 10 are needed"),
        ({"activation": lambda _: 2}, "swiglu, and nothing else, takes a second weight"),
        ({"activation": lambda _: 3}, "activation is none of 0, 1, 2"),
    ],
)
def test_what_does_not_fit_is_refused(isa, change, message):
    given = {"x": paddle.ones([2, 4]), "weight": paddle.ones([4, 5]), "bias": None, "residual": None, "activation": 0}
    for name, changed in change.items():
        given[name] = changed(given[name])
    inputs = (given["x"], given["weight"], None, None, given["bias"], given["residual"], None, None, None, None)
    with pytest.raises(ValueError, match=message):
        library.run("internvl_linear", *inputs, -1, given["activation"], 0, 0)
