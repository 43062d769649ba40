"""Linear layer with a quantized weight, 8 or 4 bits.

In: activations [.., K]. Out: [.., N]. On CUDA cards that Paddle's `weight_only_linear` kernel was written for, the
weight lies in its packed layout. Elsewhere the integers lie in row order, so that the weight takes a quarter (an
eighth) of float32's memory: the C++ library's product dequantizes them block by block; the reference dequantizes the
whole weight at every call, at the price of time.

The weight is frozen. A layer that is made trainable passes gradients on to its input (QLoRA,
https://arxiv.org/abs/2305.14314): the backward pass dequantizes the weight anew, and keeps no float copy of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn.quant import weight_only_linear

from convert.quant_layout import pack, pack_nibbles, pad_columns
from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.dispatch import Case
from paddle_internvl.ops.linear import require_no_grad


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantized weight [K, N], as it is stored.

    Attributes:
        implementation: which product takes it, see `QuantizedLinear`.
        bits: 8 or 4.
        group_size: inputs that share a scale; -1: all.
        integers: in the implementation's layout.
        scales: the scales.
        offsets: the offsets, or None.
        int8_activations: whether native products of many rows take int8 activations, see `kernels/csrc/int8.h`.
    """

    implementation: str
    bits: int
    group_size: int
    integers: paddle.Tensor
    scales: paddle.Tensor
    offsets: paddle.Tensor | None = None
    int8_activations: bool = False

    def dequantized(self) -> paddle.Tensor:
        """The weight as float32 [K, N], from row order."""
        raw = self.integers.astype("float32")
        outputs = raw.shape[1]
        if self.bits == 4:
            high = (raw / 16).floor()
            both = paddle.stack([raw - 16 * high, high], axis=1).reshape([-1, outputs])
            raw = both - 16 * (both >= 8).astype("float32")
        rows = raw.shape[0] if self.group_size == -1 else self.group_size
        grouped = raw.reshape([-1, rows, outputs]) * self.scales.reshape([-1, 1, outputs])
        if self.offsets is not None:
            grouped = grouped + self.offsets.unsqueeze(1)
        return grouped.reshape([-1, outputs])

    def product(self, x: paddle.Tensor, bias: paddle.Tensor | None = None) -> paddle.Tensor:
        """x W + b, without gradients."""
        if self.implementation == "kernel":
            return weight_only_linear(
                x, self.integers, bias, self.scales, f"int{self.bits}", group_size=self.group_size
            )
        if self.implementation == "native":
            return operators.linear(
                x, self.integers, scales=self.scales, offsets=self.offsets, bias=bias, group=self.group_size,
                int8_activations=self.int8_activations,
            )  # fmt: skip
        return F.linear(x, self.dequantized().astype(x.dtype), bias)

    def packed(self) -> np.ndarray:
        """The integers in Paddle's packed layout, as folders hold them: the last columns of a head may be padding."""
        stored = self.integers.numpy()
        if self.implementation == "kernel":
            return stored
        stored = pad_columns(stored, self.bits)
        if self.bits == 8:
            return pack(stored, 8)
        integers = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1, stored.shape[1])
        return pack(((integers ^ 8).astype(np.int8) - 8), 4)


class QuantizedLinear(nn.Layer):
    """y = x W + b with W [K, N] as integers times scales, plus offsets where there are any (AWQ's, on a CPU).

    Args:
        inputs: K.
        outputs: N.
        bits: 8 or 4.
        group_size: inputs that share a scale; -1: all.
        bias: whether there is one.
        trainable: whether gradients pass through the layer.
    Attributes:
        implementation: 'kernel' (packed layout), 'native' or 'reference' (row order); see `dispatch.CANDIDATES`.
        quant_weight: the integers.
        quant_scale: the scales.
        quant_offset: the offsets, or None.
        compute_dtype: dtype of the activations, 'float32' or a half one.
        int8_activations: see `QuantizedWeight`; False until `checkpoints.preparation` sets it.
    """

    def __init__(self, inputs: int, outputs: int, bits: int, group_size: int, bias: bool, trainable: bool = False):
        super().__init__()
        self.inputs, self.outputs, self.bits, self.group_size = inputs, outputs, bits, group_size
        self.trainable, self.compute_dtype, self.int8_activations = trainable, "float32", False
        self.bias = self.create_parameter([outputs], is_bias=True) if bias else None
        self.implementation = "reference"
        self.register_buffer("quant_weight", None)
        self.register_buffer("quant_scale", None)
        self.register_buffer("quant_offset", None)

    @property
    def is_awq(self) -> bool:
        """Whether the weight has offsets, for which Paddle's layout, and so a folder of ours, has no place."""
        return self.quant_offset is not None

    def _choose_implementation(self, place, dtype: str) -> None:
        case = Case("gpu" if place.is_gpu_place() else "cpu", dtype)
        self.implementation, self.compute_dtype = dispatch.choose_for("weight_only_linear", case), dtype
        if self.implementation == "kernel" and self.trainable:
            self.implementation = "reference"  # the packed layout can't be dequantized for the backward pass

    def _stored(self, integers: np.ndarray) -> np.ndarray:
        """int8 [K, N] in the layout of the implementation."""
        if self.implementation == "kernel":
            return pack(integers, self.bits)
        return integers if self.bits == 8 else pack_nibbles(integers)

    def set_weight(
        self, integers: np.ndarray, scales: np.ndarray, place, dtype: str, offsets: np.ndarray | None = None
    ) -> None:
        """Store a quantized weight.

        Args:
            integers: int8 [K, N].
            scales: float32 [N] or [K/g, N].
            place: Paddle's place of the weight.
            dtype: of the activations.
            offsets: as scales; not for the implementation 'kernel'.
        """
        self._choose_implementation(place, dtype)
        self._hold(self._stored(integers), scales, place, dtype)
        if offsets is not None and self.implementation != "kernel":
            self.quant_offset = paddle.to_tensor(offsets, place=place)

    def _hold(self, stored: np.ndarray, scales: np.ndarray, place, dtype: str) -> None:
        self.quant_weight = paddle.to_tensor(stored, place=place)
        self.quant_scale = paddle.to_tensor(scales, place=place)
        if self.implementation == "kernel":
            self.quant_scale = self.quant_scale.astype(dtype)

    def _quantized(self, integers, scales, offsets=None) -> QuantizedWeight:
        return QuantizedWeight(
            self.implementation, self.bits, self.group_size, integers, scales, offsets, self.int8_activations
        )

    @property
    def quantized(self) -> QuantizedWeight:
        """The weight."""
        return self._quantized(self.quant_weight, self.quant_scale, self.quant_offset)

    def dequantized(self) -> paddle.Tensor:
        """The weight as float32 [K, N], from row order."""
        return self.quantized.dequantized()

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers in Paddle's packed layout and float32 scales, as folders hold them."""
        return self.quantized.packed(), pad_columns(self.quant_scale.astype("float32").numpy(), self.bits)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._product(x, self.quantized, self.bias)

    def _product(self, x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None = None) -> paddle.Tensor:
        if self.trainable and paddle.is_grad_enabled() and not x.stop_gradient:
            return _FrozenProduct.apply(x, weight, bias)
        require_no_grad(x)
        return weight.product(x, bias)


class _FrozenProduct(PyLayer):
    """Product with a `QuantizedWeight`, and the gradient of its input."""

    @staticmethod
    def forward(ctx, x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None) -> paddle.Tensor:
        ctx.weight = weight
        return weight.product(x, bias)

    @staticmethod
    def backward(ctx, grad: paddle.Tensor) -> paddle.Tensor:
        return paddle.matmul(grad, ctx.weight.dequantized().astype(grad.dtype), transpose_y=True)
