"""Mixture of experts: its three forms against float64 sums, expert by expert, and their gradients."""

import numpy as np
import paddle
import pytest

from paddle_internvl.models.experts import Experts, route

EXPERTS, ACTIVE, WIDTH, FEATURES = 8, 3, 12, 10
FORMS = ("grouped", "gathered", "dense")


@pytest.fixture(scope="module")
def experts():
    paddle.seed(0)
    return Experts(EXPERTS, WIDTH, FEATURES, std=0.3)


@pytest.fixture
def tokens():
    """(hidden states [n, D], chosen [n, A], weights [n, A]); expert 5 has no token."""
    draw = np.random.default_rng(0)
    others = np.delete(np.arange(EXPERTS), 5)
    chosen = np.stack([draw.permutation(others)[:ACTIVE] for _ in range(7)])
    return draw.normal(size=(7, WIDTH)), chosen, draw.uniform(0.1, 1, chosen.shape)


def tensors(x, chosen, weights):
    return paddle.to_tensor(x, "float32"), paddle.to_tensor(chosen), paddle.to_tensor(weights, "float32")


def expected(experts, x, chosen, weights):
    gate_up, down = (stack.weight.numpy().astype(float) for stack in (experts.gate_up_proj, experts.down_proj))
    out = np.zeros_like(x)
    for row, (hidden, indices, factors) in enumerate(zip(x, chosen, weights)):
        for expert, factor in zip(indices, factors):
            gate, up = np.split(hidden @ gate_up[expert], 2)
            out[row] += factor * (gate / (1 + np.exp(-gate)) * up) @ down[expert]
    return out


@pytest.mark.parametrize("form", FORMS)
def test_forms(experts, tokens, form):
    with paddle.no_grad():
        found = getattr(experts, form)(*tensors(*tokens)).numpy()
    np.testing.assert_allclose(found, expected(experts, *tokens), rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_shares_of_two_ranks_add_up(experts, tokens, form):
    total = 0
    for first in (0, 4):
        share = Experts(4, WIDTH, FEATURES, first=first)
        for own, whole in zip(share.parameters(), experts.parameters()):
            own.set_value(whole[first : first + 4])
        with paddle.no_grad():
            total = total + getattr(share, form)(*tensors(*tokens)).numpy()
    np.testing.assert_allclose(total, expected(experts, *tokens), rtol=0, atol=2e-6)


def test_gradients_of_the_forms_are_equal(experts, tokens):
    found = []
    for form in FORMS:
        x, chosen, weights = tensors(*tokens)
        x.stop_gradient = weights.stop_gradient = False
        (getattr(experts, form)(x, chosen, weights) ** 2).sum().backward()
        found.append([tensor.grad.numpy() for tensor in (x, weights, *experts.parameters())])
        experts.clear_gradients()
    for grads in zip(*found):
        assert np.abs(grads[0]).max() > 0.1
        for other in grads[1:]:
            np.testing.assert_allclose(other, grads[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_router(normalised):
    logits = np.random.default_rng(1).normal(size=(5, EXPERTS))
    chosen, weights = route(paddle.to_tensor(logits, "float32"), ACTIVE, normalised)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best = np.argsort(-shares)[:, :ACTIVE]
    np.testing.assert_array_equal(chosen.numpy(), best)
    top = np.take_along_axis(shares, best, 1)
    np.testing.assert_allclose(weights.numpy(), top / top.sum(1, keepdims=True) if normalised else top, rtol=1e-5)
