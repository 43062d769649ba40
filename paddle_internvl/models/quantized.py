"""A linear layer whose weight is held in 8 or 4 bits.

In: activations [.., K]. Out: [.., N]. On CUDA cards that Paddle's `weight_only_linear` kernel was written for, the
weight lies in its packed layout. Elsewhere the integers lie in plain order and become floats anew at every call, so
that the memory of the weights really is a quarter (an eighth) of float32's, at the price of time.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.quant import weight_only_linear

from convert.packing import halves, pack
from paddle_internvl import forms


class QuantizedLinear(nn.Layer):
    """y = x W + b with W [K, N] as integers times scales.

    Args:
        inputs, outputs: K, N. bits: 8 or 4. group_size: inputs that share a scale; -1: all. bias: whether there is one.
    Attributes:
        form: 'kernel' or 'plain', by which the weight lies; see `forms.FORMS`.
    """

    def __init__(self, inputs: int, outputs: int, bits: int, group_size: int, bias: bool):
        super().__init__()
        self.inputs, self.outputs, self.bits, self.group_size = inputs, outputs, bits, group_size
        self.bias = self.create_parameter([outputs], is_bias=True) if bias else None
        self.form = "plain"
        self.register_buffer("quant_weight", None)
        self.register_buffer("quant_scale", None)

    def set_weight(self, integers: np.ndarray, scales: np.ndarray, place, dtype: str) -> None:
        """Take a weight.

        Args:
            integers: int8 [K, N]. scales: float32 [N] or [K/g, N]. place: where it shall lie. dtype: of activations.
        """
        self.form = forms.form_for("weight_only", place.is_gpu_place(), dtype)
        if self.form == "kernel":
            self.quant_weight = paddle.to_tensor(pack(integers, self.bits), place=place)
            self.quant_scale = paddle.to_tensor(scales, place=place).astype(dtype)
            return
        stored = integers if self.bits == 8 else halves(integers)
        self.quant_weight = paddle.to_tensor(stored, place=place)
        self.quant_scale = paddle.to_tensor(scales, place=place)

    def dequantized(self) -> paddle.Tensor:
        """The weight as float32 [K, N], from the plain form."""
        raw = self.quant_weight.astype("float32")
        if self.bits == 4:
            high = (raw / 16).floor()
            both = paddle.stack([raw - 16 * high, high], axis=1).reshape([self.inputs, self.outputs])
            raw = both - 16 * (both >= 8).astype("float32")
        if self.group_size == -1:
            return raw * self.quant_scale
        grouped = raw.reshape([-1, self.group_size, self.outputs]) * self.quant_scale.unsqueeze(1)
        return grouped.reshape([self.inputs, self.outputs])

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers in Paddle's layout and float32 scales, as folders hold them."""
        scales = self.quant_scale.astype("float32").numpy()
        if self.form == "kernel":
            return self.quant_weight.numpy(), scales
        stored = self.quant_weight.numpy()
        if self.bits == 8:
            return pack(stored, 8), scales
        integers = np.stack([stored & 15, stored >> 4], axis=1).reshape(self.inputs, self.outputs)
        return pack(((integers ^ 8).astype(np.int8) - 8), 4), scales

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.form == "kernel":
            return weight_only_linear(
                x, self.quant_weight, self.bias, self.quant_scale, f"int{self.bits}", group_size=self.group_size
            )
        return F.linear(x, self.dequantized().astype(x.dtype), self.bias)
