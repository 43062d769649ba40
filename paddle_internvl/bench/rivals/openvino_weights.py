"""Constants of OpenVINO graphs, made of a checkpoint's weights: bfloat16, or 8 or 4 bits as NNCF's default has them.

In: a checkpoint's tensors under our names. Out: nodes. 8 bits are asymmetric per output channel; 4 bits asymmetric in
groups of 128 within the layers, with table and head in 8 bits.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as op

from paddle_internvl.checkpoints.view import CheckpointView

_GROUP = 128  # inputs of a linear layer that share a scale in 4 bits
Node = ov.Node


class Weights:
    """Constants of a graph.

    Args:
        view: the checkpoint; linear layers are [in, out].
        bits: of a linear layer's weight, 16, 8 or 4; of 4, table and head have 8.
    """

    def __init__(self, view: CheckpointView, bits: int):
        self._view, self._bits = view, bits

    def vector(self, name: str) -> Node:
        """A float32 constant."""
        return constant(self._view.floats(name))

    def linear(self, x: Node, name: str, bias: bool = False) -> Node:
        """A linear layer."""
        y = op.matmul(x, self._matrix(name, transposed=True), False, True)
        return op.add(y, self.vector(f"{name}.bias")) if bias else y

    def rows(self, ids: Node, name: str) -> Node:
        """Rows of an embedding table."""
        return op.gather(self._matrix(name, transposed=False), ids, integer(0))

    def _matrix(self, name: str, transposed: bool) -> Node:
        """A weight [out, in] as a constant and the nodes that make float32 of it."""
        bits = self._bits if ".layers." in name else max(8, self._bits)
        matrix = self._view.array(f"{name}.weight", "BF16" if bits == 16 else "F32")
        matrix = np.ascontiguousarray(matrix.T if transposed else matrix)
        if bits == 16:
            return op.convert(_tensor(matrix, ov.Type.bf16, matrix.shape), ov.Type.f32)
        return _quantized(matrix.view(np.float32), bits)


def _quantized(matrix: np.ndarray, bits: int) -> Node:
    """A float32 matrix [out, in] as constants of 8 or 4 bits and the nodes that make float32 of them."""
    outputs, inputs = matrix.shape
    groups = 1 if inputs % _GROUP else inputs // _GROUP
    rows = matrix if bits == 8 else matrix.reshape(outputs, groups, -1)
    low, high = (bound(rows, axis=-1, keepdims=True) for bound in (np.min, np.max))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    levels = 2**bits - 1
    scale = np.maximum(high - low, 1e-9) / levels
    zero = np.clip(np.round(-low / scale), 0, levels)
    codes = np.clip(np.round(rows / scale) + zero, 0, levels)
    wide = op.subtract(*(op.convert(_few_bits(part.astype(np.uint8), bits), ov.Type.f16) for part in (codes, zero)))
    wide = op.multiply(wide, _tensor(scale.astype(np.float16), ov.Type.f16, scale.shape))
    if bits == 4:
        wide = op.reshape(wide, integers(*matrix.shape), False)
    return op.convert(wide, ov.Type.f32)


def _few_bits(codes: np.ndarray, bits: int) -> Node:
    if bits == 8:
        return _tensor(codes, ov.Type.u8, codes.shape)
    pairs = codes.reshape(-1, 2)
    return _tensor(pairs[:, 0] | pairs[:, 1] << 4, ov.Type.u4, codes.shape)


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
