"""Linear layers and the embedding, whose weights may stay in bfloat16 where what they compute is float32.

In: activations, or token ids. Out: the same in the layer's width. On a CPU with kernels (`forms`, "linear") weights
stay as the checkpoint has them, float32 or bfloat16, and often are the mapped file itself; every product widens them
exactly on its way. The plain form widens the whole weight at every call, and has gradients. Before training `widen`
makes all weights float32, since Paddle's optimizers have nothing else on a CPU.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.kernels import library
from paddle_internvl.ops import dispatch


def linear(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None = None) -> paddle.Tensor:
    """x W + b in x's dtype.

    Args:
        x: [.., K]. weight: [K, N], in x's dtype, or bfloat16 under a float32 x. bias: [N] or None.
    """
    if dispatch.choose_form("linear", x) == "native":
        return library.run("internvl_linear", x, weight, None, None, bias, None, None, None, None, None, -1, 0)
    weight = weight if weight.dtype == x.dtype else weight.astype(x.dtype)
    if paddle.in_dynamic_mode() and x.size == weight.shape[0] and not (paddle.is_grad_enabled() or dispatch.on_card(x)):
        y = paddle.matmul(x.flatten(), weight)  # a vector's product takes half the time of a matrix of one row
        return (y if bias is None else y + bias).reshape([*x.shape[:-1], -1])
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """Paddle's, computed by `linear`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """Paddle's.

    Attributes:
        widened: whether float32 comes out of weights that are kept in bfloat16.
    """

    def __init__(self, *sizes: int):
        super().__init__(*sizes)
        self.widened = False

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:  # [B, L] -> [B, L, D]
        x = super().forward(ids)
        return x.astype("float32") if self.widened else x


def widen(network: nn.Layer) -> None:
    """Make float32 of the weights that were kept in bfloat16 on a CPU, in memory of their own."""
    if all(parameter.dtype == paddle.bfloat16 for parameter in network.parameters()):
        return  # it computes in bfloat16
    for layer in network.sublayers(include_self=True):
        held = isinstance(layer, (Linear, Embedding)) and layer.weight.place.is_cpu_place()
        if held and layer.weight.dtype == paddle.bfloat16:
            layer.weight.astype("float32")._share_buffer_to(layer.weight)
            layer.widened = False
