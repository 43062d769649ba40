"""The next-token loss and log-probabilities of labels: by hand, against Paddle's cross entropy, in chunks, bounded."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn
from paddle.base import core

from paddle_internvl.models import loss
from paddle_internvl.models.loss import label_log_probs, next_token_loss


class Scaled(nn.Layer):
    """Stands for a head that is no plain linear layer, such as one with an adapter."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.weight = linear, linear.weight

    def forward(self, x):
        return self.linear(x) * 1.0


@pytest.fixture
def problem(monkeypatch):
    """hidden states, head, labels; chunks of five positions."""
    paddle.seed(0)
    hidden, head = paddle.randn([2, 30, 16]), nn.Linear(16, 97, bias_attr=False)
    hidden.stop_gradient = False
    labels = paddle.randint(0, 97, [2, 30])
    labels[0, :12] = -100
    monkeypatch.setattr(loss, "_CHUNK_BYTES", 4 * 97 * 5)
    return hidden, head, labels


def gradients(value, hidden, head):
    value.backward()
    found = hidden.grad.numpy(), head.weight.grad.numpy()
    hidden.clear_gradient()
    head.clear_gradients()
    return found


def test_by_hand():
    logits = np.random.default_rng(0).normal(size=(2, 4, 7)).astype(np.float32)
    labels = np.array([[0, -100, 3, 6], [1, 2, -100, -100]])
    shifted = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    by_hand = -np.mean([shifted[0, 1, 3], shifted[0, 2, 6], shifted[1, 0, 2]])
    head = nn.Linear(7, 7, bias_attr=False)
    head.weight.set_value(paddle.eye(7))
    value, count = next_token_loss(paddle.to_tensor(logits), head, paddle.to_tensor(labels))
    assert float(value) == pytest.approx(by_hand, rel=1e-5) and count == 3


@pytest.mark.parametrize("wrap", [lambda head: head, Scaled], ids=["linear", "another layer"])
def test_against_cross_entropy(problem, wrap):
    hidden, head, labels = problem
    targets = labels[:, 1:].flatten()
    learnt = (targets != -100).nonzero().flatten()
    rows = head(hidden)[:, :-1].flatten(0, 1).index_select(learnt)
    expected = F.cross_entropy(rows, targets.index_select(learnt))
    value, count = next_token_loss(hidden, wrap(head), labels)
    assert count == len(learnt) and float(value) == pytest.approx(float(expected), rel=1e-6)
    for ours, paddles in zip(gradients(value, hidden, head), gradients(expected, hidden, head)):
        np.testing.assert_allclose(ours, paddles, rtol=1e-4, atol=1e-7)


def test_weights_of_labels(problem):
    """Packed training weighs samples: sum of weighted losses over the sum of weights."""
    hidden, head, labels = problem
    weight = paddle.rand([2, 30])
    value, _ = next_token_loss(hidden, head, labels, weight)
    log_probs = F.log_softmax(head(hidden), axis=-1).numpy()
    weights, total = weight.numpy(), 0.0
    places = [(b, i) for b in range(2) for i in range(1, 30) if labels.numpy()[b, i] != -100]
    total = -sum(weights[b, i] * log_probs[b, i - 1, labels.numpy()[b, i]] for b, i in places)
    assert float(value) == pytest.approx(total / sum(weights[place] for place in places), rel=1e-5)


def test_nothing_to_learn_is_zero_and_counted(problem):
    hidden, head, _ = problem
    value, count = next_token_loss(hidden, head, paddle.full([2, 30], -100, "int64"))
    value.backward()
    assert (float(value), count) == (0.0, 0)
    np.testing.assert_array_equal(hidden.grad.numpy(), np.zeros([2, 30, 16], np.float32))


def test_a_frozen_head_gets_no_gradient(problem):
    hidden, head, labels = problem
    head.weight.stop_gradient = True
    next_token_loss(hidden, head, labels)[0].backward()
    assert head.weight.grad is None and float(hidden.grad.abs().max()) > 0


def test_log_probs_of_labels(problem):
    hidden, head, labels = problem
    rows, targets = hidden.flatten(0, 1), labels.flatten().clip(min=0)
    expected = F.log_softmax(head(rows), axis=-1).take_along_axis(targets.unsqueeze(-1), axis=1).squeeze(-1)
    for context in (paddle.no_grad(), paddle.enable_grad()):
        with context:
            np.testing.assert_allclose(label_log_probs(rows, head, targets).numpy(), expected.numpy(), atol=1e-5)


def test_memory_of_a_large_vocabulary():
    """1,024 positions over 151,000 tokens: logits of all of them would take 620 MB, and their gradients as much. The
    peak is that of a chunk: it does not grow with the positions (139 MB for 4,096 of them too)."""
    hidden, head = paddle.randn([1, 1025, 8]), nn.Linear(8, 151_000, bias_attr=False)
    hidden.stop_gradient = False
    labels = paddle.randint(0, 151_000, [1, 1025])
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    value, count = next_token_loss(hidden, head, labels)
    value.backward()
    peak = core.host_memory_stat_peak_value("Allocated", 0)
    assert count == 1024 and peak - before < 300e6
