"""Rotary tables and their application against numpy in complex numbers."""

import numpy as np
import paddle
import pytest

from paddle_internvl.ops import rope

E = 16


def rotate_by_hand(x, positions, theta, divisor=1.0):
    """Pairs (x_i, x_{i + E/2}) as complex numbers turned by position * theta^(-2i/E)."""
    half = E // 2
    angle = positions[..., None] / divisor * theta ** (-2 * np.arange(half) / E)  # [B, L, E/2]
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)[:, :, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def turn(kind, x, positions):
    cos, sin = kind.tables(paddle.to_tensor(positions))
    return rope.apply(paddle.to_tensor(x), cos, sin).numpy()


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 3, E)).astype(np.float32)


POSITIONS = np.array([[0, 1, 2, 3, 4], [7, 40, 41, 99, 100]])


def test_default(x):
    out = turn(rope.Rope(E, 10000.0), x, POSITIONS)
    np.testing.assert_allclose(out, rotate_by_hand(x, POSITIONS, 10000.0), rtol=1e-4, atol=1e-4)


def test_linear(x):
    out = turn(rope.Rope(E, 10000.0, "linear", 4.0), x, POSITIONS)
    np.testing.assert_allclose(out, rotate_by_hand(x, POSITIONS, 10000.0, 4.0), rtol=1e-4, atol=1e-4)


def test_dynamic_grows_only_beyond_the_trained_length_and_by_row(x):
    kind = rope.Rope(E, 10000.0, "dynamic", 2.0, trained_length=64)
    out = turn(kind, x, POSITIONS)
    np.testing.assert_allclose(out[:1], rotate_by_hand(x[:1], POSITIONS[:1], 10000.0), rtol=1e-4, atol=1e-4)
    grown = 10000.0 * (2.0 * 101 / 64 - 1) ** (E / (E - 2))  # the second row is 101 tokens long
    np.testing.assert_allclose(out[1:], rotate_by_hand(x[1:], POSITIONS[1:], grown), rtol=1e-4, atol=1e-4)


def test_a_long_request_changes_no_later_one(x):
    kind = rope.Rope(E, 10000.0, "dynamic", 2.0, trained_length=64)
    before = turn(kind, x[:1], POSITIONS[:1])
    turn(kind, x[:1], POSITIONS[:1] + 500)
    np.testing.assert_array_equal(turn(kind, x[:1], POSITIONS[:1]), before)
