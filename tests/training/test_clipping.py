"""Gradient clipping in place: Paddle's numbers, in the gradients' own memory."""

import numpy as np
import paddle
import pytest

from paddle_internvl.training.clipping import InPlaceClip, square_sum


def parameters():
    made = []
    for seed, shape in enumerate([[7, 5], [3], [2, 4]]):
        values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        parameter = paddle.create_parameter(shape, "float32")
        (parameter * paddle.to_tensor(values)).sum().backward()
        made.append(parameter)
    return made


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipped_in_place_to_paddles_numbers(limit):
    paddles, ours = ([(p, p.grad) for p in parameters()] for _ in range(2))
    expected = paddle.nn.ClipGradByGlobalNorm(limit)(paddles)
    places = [gradient.data_ptr() for _, gradient in ours]
    clipped = InPlaceClip(limit)(ours)
    assert [gradient.data_ptr() for _, gradient in clipped] == places
    for (_, a), (_, b) in zip(clipped, expected):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_square_sum_of_parts(monkeypatch):
    values = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
    monkeypatch.setattr("paddle_internvl.training.clipping._NUMBERS", 10)
    assert float(square_sum(paddle.to_tensor(values))) == pytest.approx(float((values.astype(np.float64) ** 2).sum()))
