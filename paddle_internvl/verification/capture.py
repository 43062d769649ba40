"""Activations of the network's stages, recorded by forward hooks while it runs.

In: a model. Out: name -> tensor, in the order of computation.

    pixel_values, vit.embed, vit.block.{i}, shuffle, projector, embeds, dec.block.{i}, dec.norm, logits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paddle
from paddle import nn

from paddle_internvl.models.internvl import InternVLNetwork


def _outputs(model: InternVLNetwork) -> dict[str, nn.Layer]:
    """Stages that are a layer's output."""
    vision, decoder = model.vision_model, model.language_model
    return {
        "vit.embed": vision.embeddings,
        **{f"vit.block.{i}": layer for i, layer in enumerate(vision.encoder.layers)},
        "projector": model.mlp1,
        **{f"dec.block.{i}": layer for i, layer in enumerate(decoder.model.layers)},
        "dec.norm": decoder.model.norm,
        "logits": decoder.lm_head,
    }


def _inputs(model: InternVLNetwork) -> dict[str, nn.Layer]:
    """Stages that are a layer's input."""
    return {
        "pixel_values": model.vision_model.embeddings,
        "shuffle": model.mlp1,
        "embeds": model.language_model.model.layers[0],
    }


@contextmanager
def capture(
    model: InternVLNetwork, on_stage: Callable[[str, paddle.Tensor], None] | None = None
) -> Iterator[dict[str, paddle.Tensor]]:
    """Collect the stages of forward passes within this context in the returned dict; the last pass counts.

    Args:
        model: the network.
        on_stage: called with each stage as soon as it is computed.
    """
    stages: dict[str, paddle.Tensor] = {}

    def record(name: str, stage: paddle.Tensor) -> None:
        stages[name] = stage
        if on_stage is not None:
            on_stage(name, stage)

    def record_output(name: str):
        return lambda layer, inputs, output: record(name, output)

    def record_input(name: str):
        return lambda layer, inputs: record(name, inputs[0])

    hooks = [layer.register_forward_post_hook(record_output(name)) for name, layer in _outputs(model).items()]
    hooks += [layer.register_forward_pre_hook(record_input(name)) for name, layer in _inputs(model).items()]
    try:
        yield stages
    finally:
        for hook in hooks:
            hook.remove()
