"""Linear layer with a quantized weight, 8 or 4 bits.

In: activations [.., K]. Out: [.., N]. On CUDA cards that Paddle's `weight_only_linear` kernel was written for, the
weight lies in its packed layout. Elsewhere the integers lie in row order, so that the weight takes a quarter (an
eighth) of float32's memory: the C++ library's product dequantizes them block by block; the reference dequantizes the
whole weight at every call, at the price of time.

The weight is frozen. A layer that is made trainable passes gradients on to its input (QLoRA,
https://arxiv.org/abs/2305.14314): the backward pass dequantizes the weight anew, and keeps no float copy of it.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn.quant import weight_only_linear

from convert.quant_layout import pack, pack_nibbles
from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.dispatch import Case
from paddle_internvl.ops.linear import require_no_grad


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
    """

    def __init__(self, inputs: int, outputs: int, bits: int, group_size: int, bias: bool, trainable: bool = False):
        super().__init__()
        self.inputs, self.outputs, self.bits, self.group_size = inputs, outputs, bits, group_size
        self.trainable, self.compute_dtype = trainable, "float32"
        self.bias = self.create_parameter([outputs], is_bias=True) if bias else None
        self.implementation = "reference"
        self.register_buffer("quant_weight", None)
        self.register_buffer("quant_scale", None)
        self.register_buffer("quant_offset", None)

    @property
    def is_awq(self) -> bool:
        """Whether the weight has offsets, for which Paddle's layout, and so a folder of ours, has no place."""
        return self.quant_offset is not None

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
        case = Case("gpu" if place.is_gpu_place() else "cpu", dtype)
        self.implementation, self.compute_dtype = dispatch.choose_for("weight_only_linear", case), dtype
        if self.implementation == "kernel" and self.trainable:
            self.implementation = "reference"  # the packed layout can't be dequantized for the backward pass
        if self.implementation == "kernel":
            self.quant_weight = paddle.to_tensor(pack(integers, self.bits), place=place)
            self.quant_scale = paddle.to_tensor(scales, place=place).astype(dtype)
            return
        stored = integers if self.bits == 8 else pack_nibbles(integers)
        self.quant_weight = paddle.to_tensor(stored, place=place)
        self.quant_scale = paddle.to_tensor(scales, place=place)
        if offsets is not None:
            self.quant_offset = paddle.to_tensor(offsets, place=place)

    def dequantized(self) -> paddle.Tensor:
        """The weight as float32 [K, N], from row order."""
        raw = self.quant_weight.astype("float32")
        if self.bits == 4:
            high = (raw / 16).floor()
            both = paddle.stack([raw - 16 * high, high], axis=1).reshape([self.inputs, self.outputs])
            raw = both - 16 * (both >= 8).astype("float32")
        rows = self.inputs if self.group_size == -1 else self.group_size
        grouped = raw.reshape([-1, rows, self.outputs]) * self.quant_scale.reshape([-1, 1, self.outputs])
        if self.quant_offset is not None:
            grouped = grouped + self.quant_offset.unsqueeze(1)
        return grouped.reshape([self.inputs, self.outputs])

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers in Paddle's packed layout and float32 scales, as folders hold them."""
        scales = self.quant_scale.astype("float32").numpy()
        stored = self.quant_weight.numpy()
        if self.implementation == "kernel":
            return stored, scales
        if self.bits == 8:
            return pack(stored, 8), scales
        integers = np.stack([stored & 15, stored >> 4], axis=1).reshape(self.inputs, self.outputs)
        return pack(((integers ^ 8).astype(np.int8) - 8), 4), scales

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.trainable and paddle.is_grad_enabled() and not x.stop_gradient:
            return _FrozenProduct.apply(x, self)
        require_no_grad(x)
        return self.product(x)

    def product(self, x: paddle.Tensor) -> paddle.Tensor:
        """The layer's output, without gradients."""
        if self.implementation == "kernel":
            return weight_only_linear(
                x, self.quant_weight, self.bias, self.quant_scale, f"int{self.bits}", group_size=self.group_size
            )
        if self.implementation == "native":
            return operators.linear(
                x, self.quant_weight, scales=self.quant_scale, offsets=self.quant_offset, bias=self.bias,
                group=self.group_size,
            )  # fmt: skip
        return F.linear(x, self.dequantized().astype(x.dtype), self.bias)


class _FrozenProduct(PyLayer):
    """Output of a `QuantizedLinear`, and the gradient of its input."""

    @staticmethod
    def forward(ctx, x: paddle.Tensor, layer: QuantizedLinear) -> paddle.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx, grad: paddle.Tensor) -> paddle.Tensor:
        return paddle.matmul(grad, ctx.layer.dequantized().astype(grad.dtype), transpose_y=True)
