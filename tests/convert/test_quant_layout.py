"""Packing against Paddle's own kernel byte for byte, and AWQ's nibbles against the layout written out by hand."""

import ml_dtypes
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle.nn.quant import weight_quantize

from convert.quant_layout import (
    awq_as_paddle,
    awq_nibbles,
    awq_weight,
    pack,
    pack_nibbles,
    packing_obstacle,
    quantize,
    unpack,
)

LOW = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group_size", [-1, 64, 128])
@pytest.mark.parametrize("shape", [(128, 64), (896, 128), (128, 896), (384, 320)])
def test_equal_to_paddles_kernel(dtype, bits, group_size, shape):
    weight = (np.random.default_rng(0).normal(size=shape) * 0.05).astype(LOW[dtype]).astype(np.float32)
    weight[:, 3] = 0  # a column without a scale
    tensor = paddle.to_tensor(weight).astype(dtype)
    theirs, scales = weight_quantize(tensor, algo=f"weight_only_int{bits}", arch=80, group_size=group_size)
    integers, our_scales = quantize(weight, bits, group_size, lambda x: x.astype(LOW[dtype]).astype(np.float32))
    np.testing.assert_array_equal(our_scales, scales.astype("float32").numpy())
    keep = np.arange(shape[1]) != 3  # Paddle divides 0 by 0 there
    np.testing.assert_array_equal(unpack(theirs.numpy(), bits)[:, keep], integers[:, keep])
    whole = np.where(keep, integers, unpack(theirs.numpy(), bits))
    np.testing.assert_array_equal(pack(whole, bits), theirs.numpy())
    assert not integers[:, 3].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([8, 4]), st.integers(0, 2**32 - 1))
def test_unpack_undoes_pack(k, n, bits, seed):
    low, high = (-128, 128) if bits == 8 else (-8, 8)
    integers = np.random.default_rng(seed).integers(low, high, (64 * k, 16 * n)).astype(np.int8)
    np.testing.assert_array_equal(unpack(pack(integers, bits), bits), integers)


def test_error_is_at_most_half_a_step():
    weight = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    for bits, group_size in ((8, -1), (4, 64)):
        integers, scales = quantize(weight, bits, group_size, lambda x: x)
        step = scales if group_size == -1 else np.repeat(scales, group_size, axis=0)
        assert np.abs(integers * step - weight).max() <= 0.5001 * step.max()


def test_what_does_not_fit():
    assert packing_obstacle(128, 64, 8) is None and packing_obstacle(128, 64, 4, 64) is None
    assert packing_obstacle(100, 64, 8) == "its 100 inputs are not a multiple of 64"
    assert packing_obstacle(128, 66, 8) == "its 66 outputs are not a multiple of 8"
    assert packing_obstacle(128, 64, 4, 32) == "group_size 32 is none of -1, 64, 128"
    assert packing_obstacle(192, 64, 4, 128) == "its 192 inputs are not a multiple of the group size 128"


def test_halves():
    packed = pack_nibbles(np.array([[1, -1], [-8, 7], [0, 2], [3, -4]], np.int8))
    assert packed.tolist() == [[0x81, 0x7F], [0x30, 0xC2]]


def awq_packed(nibbles):
    """Channel 8c + order[i] into bits 4i of column c, as AutoAWQ packs."""
    rows, n = nibbles.shape
    packed = np.zeros((rows, n // 8), np.uint32)
    for i, channel in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
        packed |= nibbles[:, channel::8].astype(np.uint32) << np.uint32(4 * i)
    return packed


def test_awq_by_hand():
    assert awq_nibbles(np.array([[0x76543210]], np.uint32)).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]
    rng = np.random.default_rng(0)
    q, zero = rng.integers(0, 16, (64, 24)), rng.integers(0, 16, (2, 24))
    scales = rng.normal(1, 0.1, (2, 24)).astype(np.float16)
    np.testing.assert_array_equal(awq_nibbles(awq_packed(q)), q)
    by_hand = (q - np.repeat(zero, 32, axis=0)) * np.repeat(scales, 32, axis=0).astype(np.float32)
    np.testing.assert_array_equal(awq_weight(awq_packed(q), awq_packed(zero), scales), by_hand.astype(np.float32))


def test_awq_in_paddles_layout_is_exact_or_says_why():
    rng = np.random.default_rng(0)
    q, zero = rng.integers(0, 16, (128, 64)), np.full((2, 64), 8)
    packed, reason = awq_as_paddle(awq_packed(q), awq_packed(zero))
    assert reason is None
    np.testing.assert_array_equal(unpack(packed, 4), q - 8)
    _, reason = awq_as_paddle(awq_packed(q), awq_packed(np.full((2, 64), 3)))
    assert reason == "q - zero runs from -3 to 12, 4 bits without zero points from -8 to 7"
    _, reason = awq_as_paddle(awq_packed(q), awq_packed(np.full((4, 64), 8)))
    assert reason == "group_size 32 is none of -1, 64, 128"
