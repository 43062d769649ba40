"""RMSNorm and LayerNorm over the last axis, with the residual sum in one kernel where there is one.

In and out: tensors [.., W]. The reference implementations are the definitions that tests hold the others to.
"""

from __future__ import annotations

import paddle
import paddle.incubate.nn.functional as fused
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch


def reference_rms_norm(x, weight, eps):
    x32 = x.astype("float32")
    scale = paddle.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale).astype(x.dtype) * weight


class _NativeRMSNorm(PyLayer):
    """The native kernel with its gradient: of x / rms(x) a vector that is orthogonal to x, up to epsilon."""

    @staticmethod
    def forward(ctx, x, weight, eps: float):
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return operators.rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensor()
        scale = paddle.rsqrt(x.square().mean(-1, keepdim=True) + ctx.eps)  # [.., 1]
        grad_weight = grad_x = None
        normalised = x * scale
        if not weight.stop_gradient:
            grad_weight = (grad * normalised).flatten(0, -2).sum(0)
        if not x.stop_gradient:
            slope = grad * weight
            along = (slope * normalised).mean(-1, keepdim=True)
            grad_x = slope.subtract_(normalised.multiply_(along)).multiply_(scale)
        return grad_x, grad_weight


def _native_rms_norm(x, weight, eps):
    if not paddle.is_grad_enabled():
        return operators.rms_norm(x, weight, eps)
    return _NativeRMSNorm.apply(x, weight, eps)


RMS_NORM_IMPLEMENTATIONS = {
    "native": _native_rms_norm,
    "fused": lambda x, weight, eps: fused.fused_rms_norm(x, weight, None, eps, x.ndim - 1)[0],
    "paddle": lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps)[0],
    "reference": reference_rms_norm,
}
LAYER_NORM_IMPLEMENTATIONS = {
    "native": operators.layer_norm,
    "reference": lambda x, weight, bias, eps: F.layer_norm(x, weight.shape, weight, bias, eps),
}


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, eps: float) -> paddle.Tensor:
    """RMSNorm: root-mean-square normalisation over the last axis.

    The sum of squares runs in float32. The reference applies the weight after the cast back, as upstream does
    (`InternRMSNorm`, `InternLM2RMSNorm`); Paddle's kernels apply it before.

    Args:
        x: [.., W].
        weight: [W].
        eps: added to the mean square.
    Returns:
        [.., W] in the weight's dtype.
    """
    if x.dtype != weight.dtype:  # a residual sum kept wider than the weights
        return rms_norm(x, weight.astype(x.dtype), eps).astype(weight.dtype)
    return RMS_NORM_IMPLEMENTATIONS[dispatch.choose("rms_norm", x)](x, weight, eps)


def add_rms_norm(x: paddle.Tensor, y: paddle.Tensor, weight: paddle.Tensor, eps: float):
    """The residual sum x + y and its RMSNorm: (sum, normalised)."""
    implementation = dispatch.choose("rms_norm", x) if x.dtype == y.dtype == weight.dtype else "reference"
    if implementation == "native" and not paddle.is_grad_enabled():
        return operators.add_rms_norm(x, y, weight, eps)
    if implementation == "fused":
        normalised, total = fused.fused_rms_norm(x, weight, None, eps, x.ndim - 1, residual=y)
        return total, normalised
    total = x + y.astype(x.dtype)
    return total, rms_norm(total, weight, eps)


def residual_stream(x: paddle.Tensor) -> paddle.Tensor:
    """The residual stream of embeddings x: float32 under float16, which large activations would overflow."""
    return x.astype("float32") if x.dtype == paddle.float16 else x


class RMSNorm(nn.Layer):
    """RMSNorm with its weight [W]."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = self.create_parameter([width], default_initializer=nn.initializer.Constant(1.0))
        self.eps = eps

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return rms_norm(x, self.weight, self.eps)

    def add(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The residual sum x + y, and its norm."""
        return add_rms_norm(x, y, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """LayerNorm for inputs that may be wider than the weights; the output has the weights' dtype."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        weight, bias = self.weight.astype(x.dtype), self.bias.astype(x.dtype)
        norm = LAYER_NORM_IMPLEMENTATIONS[dispatch.choose("layer_norm", x)]
        return norm(x, weight, bias, self._epsilon).astype(self.weight.dtype)
