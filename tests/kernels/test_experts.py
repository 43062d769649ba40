"""Experts of the library against float64: every way weights are held, odd shapes, few and many rows."""

import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_internvl.kernels.experts import StackedWeight, experts
from paddle_internvl.models.experts import Experts
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.stacked_linear import QuantizedStackedLinear
from tests.kernels.test_linear import KINDS, Held

WILD = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = {
    "rows": st.integers(1, 40),
    "d": st.integers(1, 70),
    "features": st.integers(1, 50),
    "seed": st.integers(0, 99),
}


class Stack:
    """Weights of several experts as the kernel takes them, and their values in float64 [E, K, N]."""

    def __init__(self, kind: str, count: int, k: int, n: int, rng, group: int, offsets: bool):
        held = [Held(kind, k, n, rng, group, offsets) for _ in range(count)]
        self.means = np.stack([each.means for each in held])
        tensors = (
            None if getattr(held[0], name) is None else paddle.stack([getattr(each, name) for each in held])
            for name in ("weight", "scales", "offsets")
        )
        self.stored = StackedWeight(*tensors, group)


def run(x, gate_up, down, chosen, weights):
    """The operator."""
    tensors = [paddle.to_tensor(each) for each in (x, chosen, weights)]
    return experts(tensors[0], gate_up.stored, down.stored, *tensors[1:]).numpy()


def exact(x, gate_up, down, chosen, weights):
    """The sum of the chosen experts in float64, and a bound of the magnitudes that are added up."""
    out, size = np.zeros(x.shape), np.full(x.shape, 1e-6)
    for row, (these, shares) in enumerate(zip(chosen, weights)):
        for e, share in zip(these, shares):
            if e < 0:
                continue
            gate, up = np.split(x[row].astype(np.float64) @ gate_up.means[e], 2)
            bounds = np.split(np.abs(x[row]).astype(np.float64) @ (np.abs(gate_up.means[e]) + 8), 2)
            inner = gate / (1 + np.exp(-np.clip(gate, -700, 700))) * up
            out[row] += share * (inner @ down.means[e])
            most = bounds[0] * (1 + np.abs(up)) + bounds[1] * (1 + np.abs(gate))
            size[row] += share * (most @ (np.abs(down.means[e]) + 8))
    return out, size


@WILD
@given(
    kind=st.sampled_from(KINDS), group=st.sampled_from([-1, 32]), offsets=st.booleans(),
    count=st.integers(1, 9), data=st.data(), **SHAPES,
)  # fmt: skip
def test_experts(isa, kind, group, offsets, count, data, rows, d, features, seed):
    rng, top = np.random.default_rng(seed), data.draw(st.integers(1, count))
    gate_up = Stack(kind, count, d, 2 * features, rng, group, offsets)
    down = Stack(kind, count, features, d, rng, group, offsets)
    x = (rng.normal(size=(rows, d)) / np.sqrt(d)).astype(np.float32)
    chosen = np.stack([rng.permutation(count)[:top] for _ in range(rows)]).astype(np.int32)
    chosen[rng.uniform(size=chosen.shape) < 0.1] = -1
    weights = rng.uniform(size=(rows, top)).astype(np.float32)
    expected, size = exact(x, gate_up, down, chosen, weights)
    assert (np.abs(run(x, gate_up, down, chosen, weights) - expected) <= 2e-6 * size).all()


@pytest.mark.parametrize("rows", [1, 12])
def test_experts_that_no_row_chose_are_not_read(isa, rows):
    rng = np.random.default_rng(0)
    gate_up, down = (Stack("float32", 4, k, n, rng, -1, False) for k, n in ((16, 24), (12, 16)))
    for stack in (gate_up, down):
        stack.stored.numbers[2] = np.nan
    chosen = np.tile(np.array([[3, 1]], np.int32), (rows, 1))
    x, weights = rng.normal(size=(rows, 16)).astype(np.float32), np.ones((rows, 2), np.float32)
    assert np.isfinite(run(x, gate_up, down, chosen, weights)).all()


@pytest.mark.parametrize("rows", [1, 12])
def test_a_row_may_name_an_expert_twice(isa, rows):
    rng = np.random.default_rng(0)
    gate_up, down = (Stack("float32", 2, k, n, rng, -1, False) for k, n in ((16, 24), (12, 16)))
    x = rng.normal(size=(rows, 16)).astype(np.float32)
    twice, once = (np.full((rows, n), 1, np.int32) for n in (2, 1))
    doubled = run(x, gate_up, down, once, np.full((rows, 1), 2, np.float32))
    both = run(x, gate_up, down, twice, np.ones((rows, 2), np.float32))
    np.testing.assert_allclose(both, doubled, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("first", [None, 3])
@pytest.mark.parametrize("bits", [0, 8, 4])
def test_layer(isa, bits, first):
    """All experts, or a tensor-parallel rank's share of them, beside one product an expert."""
    rng = np.random.default_rng(bits)
    layer = Experts(4, 64, 32, std=0.2, first=first)
    for name, k, n in (("gate_up_proj", 64, 64), ("down_proj", 32, 64)) if bits else ():
        quantized = QuantizedStackedLinear(4, k, n, bits, 32)
        integers = rng.integers(-8, 8, (4, k, n)).astype(np.int8)
        scales = rng.uniform(0.01, 0.1, (4, k // 32, n)).astype(np.float32)
        quantized.set_weights(zip(integers, scales), paddle.CPUPlace(), "float32")
        setattr(layer, name, quantized)
    x, weights = (paddle.to_tensor(rng.normal(size=(9, n)).astype(np.float32)) for n in (64, 2))
    chosen = paddle.to_tensor(np.stack([rng.permutation(4 if first is None else 10)[:2] for _ in range(9)]))
    results = []
    for form in ("native", "grouped"):
        with dispatch.force(experts=form):
            results.append([layer(x[:n], chosen[:n], weights[:n]).numpy() for n in (1, 9)])
    for native, grouped in zip(*results):
        np.testing.assert_allclose(native, grouped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": np.array([[0, 3]], np.int32)}, "chosen names an expert that there is not"),
        ({"chosen": np.array([[0, 1]], np.int64)}, "chosen has another dtype"),
        ({"weights": np.ones((1, 3), np.float32)}, "chosen and weights must be"),
        ({"x": np.ones((1, 15), np.float32)}, "the weight of 15 inputs must have 15 rows"),
        ({"down": (2, 12, 16)}, "down must be"),
        ({"down": (3, 12, 17)}, "down must be"),
    ],
)
def test_wrong_arguments_are_refused(isa, change, message):
    rng = np.random.default_rng(0)
    arguments = {
        "x": np.ones((1, 16), np.float32), "gate_up": Stack("float32", 3, 16, 24, rng, -1, False), "down": (3, 12, 16),
        "chosen": np.array([[0, 1]], np.int32), "weights": np.ones((1, 2), np.float32), **change,
    }  # fmt: skip
    arguments["down"] = Stack("float32", *arguments["down"], rng, -1, False)
    with pytest.raises(ValueError, match=message):
        run(**arguments)
