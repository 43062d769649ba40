"""Mixture of experts as an operator of the native library: the experts that a router chose for each row.

In and out: float32 tensors on a CPU, without gradients. `csrc/operators_experts.cc` checks shapes.
"""

from __future__ import annotations

from paddle_internvl.kernels.library import run


def experts(
    x, gate_up, down, chosen, weights, *, gate_up_scales=None, gate_up_offsets=None, down_scales=None,
    down_offsets=None, gate_up_group: int = -1, down_group: int = -1,
):  # fmt: skip
    """Mixture of experts: sum over the chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x)).

    The weights of experts that no row chose are not read.

    Args:
        x: [T, D].
        gate_up: float32 or bfloat16 [E, D, 2 I], gate's columns first; int8 likewise; or uint8 [E, D / 2, 2 I], two
            4-bit rows a byte.
        down: as gate_up, of [E, I, D].
        chosen: int32 [T, top], the experts of each row.
        weights: [T, top].
        gate_up_scales: float32 [E, 2 I] or [E, D / group, 2 I], of integer weights.
        gate_up_offsets: as gate_up_scales; added after scaling.
        down_scales: as gate_up_scales, of down.
        down_offsets: as down_scales.
        gate_up_group: rows of gate_up that share a scale; -1: all.
        down_group: as gate_up_group, of down.
    Returns:
        [T, D].
    """
    return run(
        "internvl_experts", x, gate_up, gate_up_scales, gate_up_offsets, down, down_scales, down_offsets, chosen,
        weights, gate_up_group, down_group,
    )  # fmt: skip
