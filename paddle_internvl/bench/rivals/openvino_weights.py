"""Constants of OpenVINO graphs, made of a checkpoint's weights: bfloat16, or 8 or 4 bits as NNCF's default has them.

In: float32 arrays under our names. Out: nodes. 8 bits are asymmetric per output channel; 4 bits asymmetric in groups of
128 within the layers, with table and head in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
import openvino.opset13 as op

from convert.dtypes import cast

_GROUP = 128  # inputs of a linear layer that share a scale in 4 bits
Node = ov.Node


class Weights:
    """Constants of a graph.

    Args:
        floats: name -> float32 array of a tensor under our name; linear layers are [in, out].
        bits: of a linear layer's weight, 16, 8 or 4; of 4, table and head have 8.
    """

    def __init__(self, floats: Callable[[str], np.ndarray], bits: int):
        self._floats, self._bits = floats, bits

    def vector(self, name: str) -> Node:
        """A float32 constant."""
        return constant(self._floats(name))

    def linear(self, x: Node, name: str, bias: bool = False) -> Node:
        """A linear layer."""
        matrix = np.ascontiguousarray(self._floats(f"{name}.weight").T)
        y = op.matmul(x, _compressed(matrix, self._bits_of(name)), False, True)
        return op.add(y, self.vector(f"{name}.bias")) if bias else y

    def rows(self, ids: Node, name: str) -> Node:
        """Rows of an embedding table."""
        return op.gather(_compressed(self._floats(f"{name}.weight"), self._bits_of(name)), ids, integer(0))

    def _bits_of(self, name: str) -> int:
        return self._bits if ".layers." in name else max(8, self._bits)


def _compressed(matrix: np.ndarray, bits: int) -> Node:
    """A float32 matrix [out, in] as a constant of so many bits and the nodes that make float32 of it."""
    if bits == 16:
        halves = cast(matrix.view(np.uint32), "F32", "BF16")
        return op.convert(_tensor(halves, ov.Type.bf16, matrix.shape), ov.Type.f32)
    outputs, inputs = matrix.shape
    group = inputs if bits == 8 or inputs % _GROUP else _GROUP
    grouped = matrix.reshape(outputs, inputs // group, group)
    low, high = (bound(grouped, axis=-1, keepdims=True) for bound in (np.min, np.max))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    levels = 2**bits - 1
    scale = np.maximum(high - low, 1e-9) / levels
    zero = np.clip(np.round(-low / scale), 0, levels)
    codes = np.clip(np.round(grouped / scale) + zero, 0, levels).astype(np.uint8)
    shape = matrix.shape if bits == 8 else grouped.shape
    if bits == 8:
        scale, zero = scale[:, 0], zero[:, 0]
    stored = [
        _few_bits(part.astype(np.uint8), part_shape, bits) for part, part_shape in ((codes, shape), (zero, zero.shape))
    ]
    wide = op.subtract(*(op.convert(part, ov.Type.f16) for part in stored))
    wide = op.multiply(wide, _tensor(scale.astype(np.float16), ov.Type.f16, scale.shape))
    if bits == 4:
        wide = op.reshape(wide, integers(*matrix.shape), False)
    return op.convert(wide, ov.Type.f32)


def _few_bits(codes: np.ndarray, shape: tuple[int, ...], bits: int) -> Node:
    if bits == 8:
        return _tensor(codes, ov.Type.u8, shape)
    pairs = codes.reshape(-1, 2)
    return _tensor(pairs[:, 0] | pairs[:, 1] << 4, ov.Type.u4, shape)


def _tensor(array: np.ndarray, kind: ov.Type, shape: tuple[int, ...]) -> Node:
    return ov.op.Constant(ov.Tensor(np.ascontiguousarray(array), ov.Shape(shape), kind), shared_memory=False)


def constant(values) -> Node:
    """A constant of numpy's dtype."""
    return op.constant(np.ascontiguousarray(values))


def integers(*values: int) -> Node:
    """A constant int64 vector."""
    return op.constant(np.array(values, np.int64))


def integer(value: int) -> Node:
    """A constant int64 scalar."""
    return op.constant(np.int64(value))
