"""Recompute of a layer in the backward pass (activation checkpointing), also behind a frozen part of the network."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute


def recompute_layer(layer: nn.Layer, x: paddle.Tensor, *inputs) -> paddle.Tensor:
    """Output of a layer that keeps its input alone, and runs again in the backward pass.

    Paddle's `recompute` differentiates nothing if no input needs gradients, so trainable parameters behind frozen ones
    would be left without: x is made to need them. A frozen layer on such an x keeps nothing anyway.

    Args:
        layer: a function of tensors.
        x: first input, float.
        inputs: other inputs.
    """
    if x.stop_gradient:
        if all(parameter.stop_gradient for parameter in layer.parameters()):
            return layer(x, *inputs)
        x = x.detach()
        x.stop_gradient = False
    return recompute(layer, x, *inputs)
