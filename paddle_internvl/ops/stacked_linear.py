"""Stacked linear layers: the linear layers of X experts as one tensor [X, K, N], floats or a few bits.

In: rows that one expert computes, or one expert for each row. Out: their products.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_internvl.ops.linear import linear


class StackedLinear(nn.Layer):
    """X linear layers without biases.

    Args:
        experts: X.
        inputs: K.
        outputs: N.
        std: standard deviation of a new layer's weights.
    Attributes:
        weight: [X, K, N].
    """

    def __init__(self, experts: int, inputs: int, outputs: int, std: float = 0.02):
        super().__init__()
        self.weight = self.create_parameter(
            [experts, inputs, outputs], default_initializer=nn.initializer.Normal(0.0, std)
        )

    def products(self, parts: dict[int, paddle.Tensor]) -> list[paddle.Tensor]:
        """Products of the rows [m, K] of several experts: [m, N] each.

        Args:
            parts: index of an expert -> its rows.
        """
        # A slice of a weight that is trained would have a gradient of the size of the whole: unbind has one gradient.
        trained = paddle.is_grad_enabled() and not self.weight.stop_gradient
        weights = self.weight.unbind(0) if trained else self.weight
        return [linear(rows, weights[expert]) for expert, rows in parts.items()]

    def gathered(self, x: paddle.Tensor, chosen: paddle.Tensor) -> paddle.Tensor:
        """Products of rows [m, K] with the weight of one expert each, whose indices are int64 [m]: [m, N].

        Shapes don't depend on the values, as a CUDA graph needs it; the weights are copied.
        """
        weights = self.weight.index_select(chosen, axis=0)  # [m, K, N]
        return paddle.matmul(x.unsqueeze(1), weights).squeeze(1)

    def everywhere(self, x: paddle.Tensor) -> paddle.Tensor:
        """Products of rows [n, K] with the weights of all experts, or of each expert's rows [X, n, K]: [X, n, N]."""
        return paddle.matmul(x, self.weight)

    def extra_repr(self) -> str:
        """Shape and dtype of the weight."""
        experts, inputs, outputs = self.weight.shape
        return f"experts={experts}, in_features={inputs}, out_features={outputs}, dtype={self.weight.dtype}"
