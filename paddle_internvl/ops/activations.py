"""Activations: SwiGLU and GELU. Element by element; know nothing of layers."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch

SWIGLU_IMPLEMENTATIONS = {
    "native": operators.swiglu,
    "fused": F.swiglu,
    "reference": lambda gate, up: F.silu(gate) * up,
}
GELU_IMPLEMENTATIONS = {"native": operators.gelu, "reference": F.gelu}


def swiglu(gate: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
    """silu(gate) * up."""
    return SWIGLU_IMPLEMENTATIONS[dispatch.choose("swiglu", gate)](gate, up)


def gelu(x: paddle.Tensor) -> paddle.Tensor:
    """GELU by erf: x times the normal distribution function of x."""
    return GELU_IMPLEMENTATIONS[dispatch.choose("gelu", x)](x)


class GELU(nn.Layer):
    """`gelu` as a layer."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return gelu(x)
