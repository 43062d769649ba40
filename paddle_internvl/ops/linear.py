"""Linear layers and the embedding of a model prepared for inference on a CPU.

In: activations, or token ids. Out: the same in the layer's width, float32. A plain network has Paddle's own layers;
`checkpoints.preparation` puts these in their place. Their weights keep the checkpoint's dtype, float32 or bfloat16, and
often are the memory-mapped file itself: a product widens bfloat16 weights exactly.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch


def require_no_grad(x: paddle.Tensor) -> None:
    """Refuse an input that wants a gradient: kernels for inference have none.

    Raises:
        ValueError: gradients are recorded for x.
    """
    if paddle.is_grad_enabled() and not x.stop_gradient:
        raise ValueError("a model prepared for inference has no gradients; load it with trainable=True")


def linear(x: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """x W for weights [K, N] in x's dtype, or in bfloat16 under a float32 x where the C++ library runs."""
    if dispatch.choose("linear", x) == "native":
        return operators.linear(x, weight)
    return F.linear(x, weight)


class NativeLinear(nn.Linear):
    """Linear layer of the C++ library: float32 activations, weights in float32 or bfloat16.

    Args:
        plain: the layer whose weight and bias it takes over.
        bfloat16: bfloat16 arithmetic: activations are rounded before the product; sums stay float32.
    """

    def __init__(self, plain: nn.Linear, bfloat16: bool = False):
        nn.Layer.__init__(self)
        self.weight, self.bias, self.bfloat16 = plain.weight, plain.bias, bfloat16

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [.., K] -> [.., N]
        require_no_grad(x)
        return operators.linear(x, self.weight, bias=self.bias, bfloat16=self.bfloat16)

    def extra_repr(self) -> str:
        """Shape and dtype of the weight."""
        return f"in_features={self.weight.shape[0]}, out_features={self.weight.shape[1]}, dtype={self.weight.dtype}"


class VectorLinear(nn.Linear):
    """Linear layer for a CPU without kernels: one row of activations is a matrix-vector product, which takes half the
    time of a matrix of one row.

    Args:
        plain: the layer whose weight and bias it takes over.
    """

    def __init__(self, plain: nn.Linear):
        nn.Layer.__init__(self)
        self.weight, self.bias = plain.weight, plain.bias

    def extra_repr(self) -> str:
        """Shape and dtype of the weight."""
        return NativeLinear.extra_repr(self)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [.., K] -> [.., N]
        if x.size != self.weight.shape[0]:
            return F.linear(x, self.weight, self.bias)
        y = paddle.matmul(x.flatten(), self.weight)
        return (y if self.bias is None else y + self.bias).reshape([*x.shape[:-1], -1])


class WideningEmbedding(nn.Embedding):
    """Embedding whose rows leave in float32 from a weight in bfloat16.

    Args:
        plain: the layer whose weight it takes over.
    """

    def __init__(self, plain: nn.Embedding):
        nn.Layer.__init__(self)
        self.weight = plain.weight

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:  # [B, L] -> [B, L, D]
        return F.embedding(ids, self.weight).astype("float32")

    def extra_repr(self) -> str:
        """Shape and dtype of the weight."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, dtype={self.weight.dtype}"
