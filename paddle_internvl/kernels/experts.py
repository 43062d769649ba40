"""Mixture of experts as an operator of the native library: the experts that a router chose for each row.

In and out: float32 tensors on a CPU, without gradients. `csrc/operators_experts.cc` checks shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from paddle_internvl.kernels.library import run


@dataclass(frozen=True)
class StackedWeight:
    """Weights [X, K, N] of the linear layers of X experts, as they are stored.

    Attributes:
        numbers: float32 or bfloat16 [X, K, N]; int8 [X, K, N]; or uint8 [X, K / 2, N], two 4-bit rows a byte.
        scales: float32 [X, N] or [X, K / group, N], of integers.
        offsets: as scales; added after scaling.
        group: rows that share a scale; -1: all.
    """

    numbers: paddle.Tensor
    scales: paddle.Tensor | None = None
    offsets: paddle.Tensor | None = None
    group: int = -1


def experts(x, gate_up: StackedWeight, down: StackedWeight, chosen, weights):
    """Mixture of experts: sum over the chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x)).

    The weights of experts that no row chose are not read.

    Args:
        x: [n, D].
        gate_up: K = D, N = 2 I, the gate's columns first.
        down: K = I, N = D.
        chosen: int32 [n, A], the experts of each row; negative: none.
        weights: [n, A].
    Returns:
        [n, D].
    """
    stored = [(each.numbers, each.scales, each.offsets) for each in (gate_up, down)]
    return run("internvl_experts", x, *stored[0], *stored[1], chosen, weights, gate_up.group, down.group)
