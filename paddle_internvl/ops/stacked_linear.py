"""Stacked linear layers: the linear layers of X experts as one tensor [X, K, N], floats or a few bits.

In: rows that one expert computes, or one expert for each row. Out: their products.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import paddle
from paddle import nn

from paddle_internvl.kernels.experts import StackedWeight
from paddle_internvl.ops.linear import linear
from paddle_internvl.ops.quantized_linear import QuantizedLinear, QuantizedWeight


class StackedLinear(nn.Layer):
    """X linear layers without biases.

    Args:
        experts: X.
        inputs: K.
        outputs: N.
        std: standard deviation of a new layer's weights.
    Attributes:
        weight: [X, K, N].
        bits: of a weight of integers; 0: floats.
    """

    bits = 0

    def __init__(self, experts: int, inputs: int, outputs: int, std: float = 0.02):
        super().__init__()
        self.experts, self.inputs, self.outputs = experts, inputs, outputs
        self.weight = self.create_parameter(
            [experts, inputs, outputs], default_initializer=nn.initializer.Normal(0.0, std)
        )

    @property
    def stacked(self) -> StackedWeight:
        """The weights, for the kernel of all experts."""
        return StackedWeight(self.weight)

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
        weights = self.weight.gather(chosen)  # [m, K, N]
        return paddle.matmul(x.unsqueeze(1), weights).squeeze(1)

    def everywhere(self, x: paddle.Tensor) -> paddle.Tensor:
        """Products of rows [n, K] with the weights of all experts, or of each expert's rows [X, n, K]: [X, n, N]."""
        return paddle.matmul(x, self.weight)

    def extra_repr(self) -> str:
        """Shape and dtype of the weight."""
        experts, inputs, outputs = self.weight.shape
        return f"experts={experts}, in_features={inputs}, out_features={outputs}, dtype={self.weight.dtype}"


class QuantizedStackedLinear(QuantizedLinear):
    """X linear layers without biases whose weights have 8 or 4 bits; the methods are those of `StackedLinear`.

    Args:
        experts: X.
        inputs: K.
        outputs: N.
        bits: 8 or 4.
        group_size: inputs that share a scale; -1: all.
        trainable: whether gradients pass through the layer.
    Attributes:
        quant_weight: the integers of all experts, those of one expert in the layout of a `QuantizedLinear`.
        quant_scale: the scales, [X, N] or [X, K/g, N].
    """

    def __init__(self, experts: int, inputs: int, outputs: int, bits: int, group_size: int, trainable: bool = False):
        super().__init__(inputs, outputs, bits, group_size, bias=False, trainable=trainable)
        self.experts = experts

    def set_weights(self, weights: Iterable[tuple[np.ndarray, np.ndarray]], place, dtype: str) -> None:
        """Store the quantized weights of the experts, one after the other.

        Args:
            weights: of each expert, int8 [K, N] and float32 scales [N] or [K/g, N].
            place: Paddle's place of the weights.
            dtype: of the activations.
        """
        self._choose_implementation(place, dtype)
        for n, (integers, scales) in enumerate(weights):
            stored = self._stored(integers)
            if n == 0:
                whole = tuple(np.empty([self.experts, *part.shape], part.dtype) for part in (stored, scales))
            whole[0][n], whole[1][n] = stored, scales
        self._hold(*whole, place, dtype)

    @property
    def quantized(self) -> list[QuantizedWeight]:
        """The weight of each expert."""
        return [self._quantized(self.quant_weight[n], self.quant_scale[n]) for n in range(self.experts)]

    @property
    def stacked(self) -> StackedWeight:
        """See `StackedLinear`."""
        return StackedWeight(self.quant_weight, self.quant_scale, group=self.group_size)

    def dequantized(self) -> paddle.Tensor:
        """The weights as float32 [X, K, N], from row order."""
        return paddle.stack([weight.dequantized() for weight in self.quantized])

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers in Paddle's packed layout and float32 scales, as folders hold them."""
        integers = np.stack([weight.packed() for weight in self.quantized])
        return integers, self.quant_scale.astype("float32").numpy()

    def products(self, parts: dict[int, paddle.Tensor]) -> list[paddle.Tensor]:
        """See `StackedLinear`."""
        integers, scales = self.quant_weight, self.quant_scale
        return [self._product(x, self._quantized(integers[n], scales[n])) for n, x in parts.items()]

    def gathered(self, x: paddle.Tensor, chosen: paddle.Tensor) -> paddle.Tensor:
        """See `StackedLinear`."""
        integers, scales = self.quant_weight.gather(chosen), self.quant_scale.gather(chosen)
        rows = range(x.shape[0])
        return paddle.concat([self._product(x[n : n + 1], self._quantized(integers[n], scales[n])) for n in rows])

    def everywhere(self, x: paddle.Tensor) -> paddle.Tensor:
        """See `StackedLinear`."""
        parts = {n: x if x.ndim == 2 else x[n] for n in range(self.experts)}
        return paddle.stack(self.products(parts))
