"""Small layers that both towers share: norms, SwiGLU and DropPath.

In and out: tensors whose last axis is the width. They know nothing of attention or of checkpoints. Which form of an
operation runs is `forms`' decision; the plain ones are the definitions that tests hold the others to.
"""

from __future__ import annotations

import paddle
import paddle.incubate.nn.functional as fused
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.kernels import library
from paddle_internvl.ops import dispatch


def _plain_rms_norm(x, weight, eps):
    x32 = x.astype("float32")
    scale = paddle.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale).astype(x.dtype) * weight


_RMS_NORM = {
    "native": lambda x, weight, eps: library.run("internvl_norm", x, weight, None, eps, 0),
    "fused": lambda x, weight, eps: fused.fused_rms_norm(x, weight, None, eps, x.ndim - 1)[0],
    "differentiable": lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps)[0],
    "plain": _plain_rms_norm,
}
_LAYER_NORM = {
    "native": lambda x, weight, bias, eps: library.run("internvl_norm", x, weight, bias, eps, 1),
    "plain": lambda x, weight, bias, eps: F.layer_norm(x, weight.shape, weight, bias, eps),
}


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, eps: float) -> paddle.Tensor:
    """Root-mean-square normalisation over the last axis.

    The sum of squares runs in float32. The plain form applies the weight after the cast back, as upstream does
    (`InternRMSNorm`, `InternLM2RMSNorm`); Paddle's kernels apply it before.

    Args:
        x: [..., W]. weight: [W]. eps: added to the mean square.
    Returns:
        [..., W] in the weight's dtype.
    """
    if x.dtype != weight.dtype:  # a residual sum kept wider than the weights
        return rms_norm(x, weight.astype(x.dtype), eps).astype(weight.dtype)
    return _RMS_NORM[dispatch.choose_form("rms_norm", x)](x, weight, eps)


def add_rms_norm(x: paddle.Tensor, y: paddle.Tensor, weight: paddle.Tensor, eps: float):
    """The sum x + y and its `rms_norm`, in one kernel where there is one: (sum, normalised)."""
    form = dispatch.choose_form("rms_norm", x) if x.dtype == y.dtype == weight.dtype else "plain"
    if form == "native":
        return tuple(library.run("internvl_add_norm", x, y, weight, None, eps, 0))
    if form == "fused":
        normalised, total = fused.fused_rms_norm(x, weight, None, eps, x.ndim - 1, residual=y)
        return total, normalised
    total = x + y.astype(x.dtype)
    return total, rms_norm(total, weight, eps)


def wide_sum(x: paddle.Tensor) -> paddle.Tensor:
    """What residual branches are added to: float32 under float16, which large activations would overflow."""
    return x.astype("float32") if x.dtype == paddle.float16 else x


class RMSNorm(nn.Layer):
    """`rms_norm` with its weight [W]."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = self.create_parameter([width], default_initializer=nn.initializer.Constant(1.0))
        self.eps = eps

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return rms_norm(x, self.weight, self.eps)

    def after(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """x + y, and that normalised."""
        return add_rms_norm(x, y, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Paddle's, for inputs that may be wider than the weights; out comes the weights' dtype."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        weight, bias = self.weight.astype(x.dtype), self.bias.astype(x.dtype)
        return _LAYER_NORM[dispatch.choose_form("layer_norm", x)](x, weight, bias, self._epsilon).astype(
            self.weight.dtype
        )


_SWIGLU = {
    "native": lambda gate, up: library.run("internvl_elements", gate, up, None, 1),
    "fused": F.swiglu,
    "plain": lambda gate, up: F.silu(gate) * up,
}
_GELU = {"native": lambda x: library.run("internvl_elements", x, None, None, 0), "plain": F.gelu}


def swiglu(gate: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
    """silu(gate) * up."""
    return _SWIGLU[dispatch.choose_form("swiglu", gate)](gate, up)


def gelu(x: paddle.Tensor) -> paddle.Tensor:
    """x times the normal distribution function of x, by erf."""
    return _GELU[dispatch.choose_form("gelu", x)](x)


class GELU(nn.Layer):
    """`gelu`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return gelu(x)


class DropPath(nn.Layer):
    """Stochastic depth (https://arxiv.org/abs/1603.09382): while training, drop a sample's residual branch.

    Args:
        rate: probability in [0, 1) that a sample's branch is dropped; kept ones are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [T, 1+P, C]
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = paddle.bernoulli(paddle.full([x.shape[0]] + [1] * (x.ndim - 1), keep, dtype="float32"))
        return x * (kept / keep).astype(x.dtype)
