"""Casts between floats against ml_dtypes and numpy, on every bit pattern that matters."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert import CheckpointError
from convert.dtypes import carrier, cast

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def by_library(carried, source, target):
    with np.errstate(all="ignore"):
        return carried.view(NUMPY[source]).astype(NUMPY[target])


@pytest.mark.parametrize("source", ["BF16", "F16"])
@pytest.mark.parametrize("target", ["F32", "F64"])
def test_widening_every_value(source, target):
    carried = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(
        cast(carried, source, target).view(NUMPY[target]), by_library(carried, source, target)
    )


@settings(deadline=None)
@given(st.lists(st.floats(width=32), min_size=1))
def test_float32_to_bfloat16(values):
    carried = np.array(values, np.float32).view(np.uint32)
    ours = cast(carried, "F32", "BF16").view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(ours, by_library(carried, "F32", "BF16").astype(np.float32))


@settings(deadline=None)
@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1))
def test_float32_to_float16(values):
    carried = np.array(values, np.float32).view(np.uint32)
    np.testing.assert_array_equal(cast(carried, "F32", "F16").view(np.float16), by_library(carried, "F32", "F16"))


def test_float16_overflow_is_an_error():
    carried = np.array([1.0, 70000.0, np.inf], np.float32).view(np.uint32)
    with pytest.raises(CheckpointError, match="magnitude 7e.04 does not fit float16"):
        cast(carried, "F32", "F16")


def test_same_dtype_is_the_same_array():
    carried = np.arange(4, dtype=carrier("BF16"))
    assert cast(carried, "BF16", "BF16") is carried
