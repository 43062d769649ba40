"""Dtypes of safetensors files: their size, the numpy type that carries their bytes, and exact casts between floats.

BF16 has no numpy type: its two bytes travel as uint16.
"""

from __future__ import annotations

import numpy as np

from convert import CheckpointError

# Moving bytes needs only their number, so every dtype is carried as an unsigned integer of its size.
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # the spelling of config.json and of --dtype
_FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")


def carrier(dtype: str) -> np.dtype:
    """The unsigned integer type whose bytes carry a safetensors dtype."""
    return np.dtype(f"u{SIZES[dtype]}")


def is_float(dtype: str) -> bool:
    """Whether `cast` takes the dtype."""
    return dtype in _FLOAT_DTYPES


def cast(carried: np.ndarray, source: str, target: str) -> np.ndarray:
    """Carried bytes of one float dtype as carried bytes of another, rounded to nearest even.

    Raises:
        CheckpointError: a finite value that float16 can't hold.
    """
    if source == target:
        return carried
    values = _to_float(carried, source)
    if target == "BF16":
        return _to_bfloat16(values.astype(np.float32))
    if target == "F16":
        with np.errstate(over="ignore"):
            small = values.astype(np.float16)
        if np.isinf(small).sum() != np.isinf(values).sum():
            raise CheckpointError(
                f"a weight of magnitude {np.abs(values[np.isfinite(values)]).max():.3g} does not fit float16; "
                "use --dtype bfloat16 or float32"
            )
        return small.view(np.uint16)
    return values.astype({"F32": np.float32, "F64": np.float64}[target]).view(carrier(target))


def _to_float(carried: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (carried.astype(np.uint32) << 16).view(np.float32)
    return carried.view({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # half to even
    nan = (bits >> 16) | 0x40  # rounding could carry a NaN's payload into infinity
    return np.where(np.isnan(values), nan, rounded).astype(np.uint16)
