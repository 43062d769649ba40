"""Mixture of experts (Qwen3-MoE): a router, and the weights of all experts of a layer as two stacked tensors.

Upstream has three tensors for each expert. Ours are `gate_up_proj` [X, D, 2I], the gate's columns before the up
projection's, and `down_proj` [X, I, D], for X experts of I features.
"""

from __future__ import annotations

from convert.layouts import stacked
from convert.rules import Rule, linear, stack
from convert.sizes import DecoderSizes

_ROUTER = "mlp.gate"


def rules(sizes: DecoderSizes, at: str) -> list[Rule]:
    """Rules of a sparse layer in place of its MLP's.

    Args:
        sizes: of the language model.
        at: prefix of the names, with `{}` for the layer.
    """
    d, i, experts = sizes.width, sizes.experts.features, range(sizes.experts.experts)
    gate_up = [f"{at}experts.{n}.{name}_proj.weight" for n in experts for name in ("gate", "up")]
    down = [f"{at}experts.{n}.down_proj.weight" for n in experts]
    return [
        linear(at + "gate.weight", at + "gate.weight", (len(experts), d)),
        stack(gate_up, at + "experts.gate_up_proj.weight", (i, d), stacked(i, i)),
        stack(down, at + "experts.down_proj.weight", (d, i), stacked(d)),
    ]


def is_expert(parameter: str) -> bool:
    """Whether a parameter of ours holds the weights of all experts of a layer."""
    return ".mlp.experts." in parameter


def is_router(layer: str) -> bool:
    """Whether a linear layer is a router, which is never quantised and gets no LoRA adapter."""
    return layer.endswith(_ROUTER)
