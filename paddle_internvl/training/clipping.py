"""Gradient clipping by global norm in place, and the sum of squares of a gradient, both without copies of gradients."""

from __future__ import annotations

import paddle
from paddle import distributed, nn

_NUMBERS = 1 << 22  # of a gradient that are float64 at a time


class InPlaceClip(nn.ClipGradByGlobalNorm):
    """Paddle's clipping by global norm, number for number, that overwrites the gradients.

    Paddle's own makes new gradients, all of which live until the end of the step.

    Args:
        clip_norm: maximum of the norm.
        group: ranks that the gradients are sharded over; None: each rank has all of them.
    """

    def __init__(self, clip_norm: float, group=None):
        super().__init__(clip_norm)
        self._group = group

    @paddle.no_grad()
    def _dygraph_clip(self, params_grads):
        gradients = [gradient for _, gradient in params_grads if gradient is not None]
        if gradients:
            squares = [paddle._C_ops.squared_l2_norm(gradient.astype("float32")) for gradient in gradients]
            total = paddle.stack(squares).sum()
            if self._group is not None:
                distributed.all_reduce(total, group=self._group)
            limit = paddle.full([1], self.clip_norm, "float32")
            factor = limit / paddle.maximum(total.sqrt(), limit)
            for gradient in gradients:
                gradient.multiply_(factor.astype(gradient.dtype))
        return params_grads


@paddle.no_grad()
def square_sum(gradient: paddle.Tensor) -> paddle.Tensor:
    """Sum of squares in float64, a scalar; made from parts of the gradient."""
    numbers = gradient.flatten()
    total = paddle.zeros([], "float64")
    for start in range(0, numbers.shape[0], _NUMBERS):
        total += numbers[start : start + _NUMBERS].astype("float64").square().sum()
    return total
