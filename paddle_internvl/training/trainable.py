"""Freezing: which parameters of a model are trained, and its stochastic depth, by upstream's argument names."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from paddle import nn

from paddle_internvl.models.experts import SparseMLP
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.training.lora import LoRALinear

PARTS = {  # argument -> part of the network that it freezes
    "freeze_backbone": "vision_model",
    "freeze_mlp": "mlp1",
    "freeze_llm": "language_model",
}


@dataclass(frozen=True)
class ParameterCount:
    """Number of parameters of one part of a model.

    Attributes:
        part: 'vision_model', 'mlp1' or 'language_model'.
        total: number of parameters.
        trainable: number of those that are trained.
    """

    part: str
    total: int
    trainable: int


def set_trainable(
    model: InternVLNetwork,
    freeze_llm: bool = False,
    freeze_backbone: bool = False,
    freeze_mlp: bool = False,
    unfreeze_vit_layers: int = 0,
    unfreeze_lm_head: bool = False,
) -> None:
    """Freeze parts of a model: their parameters get `stop_gradient`, and no graph is kept for a frozen vision tower.

    LoRA adapters are always trained, and the part around them is always frozen.

    Args:
        model: loaded with `trainable=True`.
        freeze_llm: freeze the language model.
        freeze_backbone: freeze the vision tower.
        freeze_mlp: freeze the projector.
        unfreeze_vit_layers: k != 0: train layers k, k + 1, ... of the vision tower all the same; -2: its last two.
        unfreeze_lm_head: train the output head all the same.
    Raises:
        ValueError: a model that is prepared for inference, layers that do not exist, quantized weights that are to be
            trained, or nothing is left to train.
    Source: upstream `internvl_chat_finetune.py`, `main`. Its `unfreeze_lm_head` and, with recompute, its
        `unfreeze_vit_layers` train nothing; here they do.
    """
    if model.is_prepared:
        raise ValueError("the model is prepared for inference; load it with from_pretrained(..., trainable=True)")
    frozen = {"freeze_llm": freeze_llm, "freeze_backbone": freeze_backbone, "freeze_mlp": freeze_mlp}
    for argument, part in PARTS.items():
        _freeze_part(getattr(model, part), frozen[argument])
    layers = model.vision_model.encoder.layers
    if not -len(layers) <= unfreeze_vit_layers < len(layers):
        raise ValueError(f"unfreeze_vit_layers={unfreeze_vit_layers}, but the vision tower has {len(layers)} layers")
    if unfreeze_vit_layers:
        for layer in list(layers)[unfreeze_vit_layers:]:
            _freeze(layer, False)
    for layer in list(layers)[model.select_layer % (len(layers) + 1) :]:
        _freeze(layer, True)  # layers after the selected one never run
    if unfreeze_lm_head:
        _freeze(model.language_model.lm_head, False)
    if not any(count.trainable for count in count_parameters(model)):
        raise ValueError("every part is frozen and nothing is trained; unfreeze one, or add LoRA")


def _freeze_part(part: nn.Layer, frozen: bool) -> None:
    """Freeze a part or not; if it has LoRA adapters, they are trained and the rest of it is frozen."""
    adapted = any(isinstance(layer, LoRALinear) for layer in part.sublayers())
    if not (frozen or adapted) and any(isinstance(layer, QuantizedLinear) for layer in part.sublayers()):
        raise ValueError("quantized weights can't be trained; set freeze_llm, or add adapters by use_llm_lora")
    for name, parameter in part.named_parameters():
        is_adapter = name.endswith((".lora_A", ".lora_B"))
        parameter.stop_gradient = (frozen or adapted) and not is_adapter


def _freeze(layer: nn.Layer, frozen: bool) -> None:
    for parameter in layer.parameters():
        parameter.stop_gradient = frozen


def count_parameters(model: InternVLNetwork) -> list[ParameterCount]:
    """Number of parameters and of trainable parameters of each part of a model."""
    counts = []
    for part in PARTS.values():
        sizes = [(prod(p.shape), not p.stop_gradient) for p in getattr(model, part).parameters()]
        trainable = sum(size for size, is_trainable in sizes if is_trainable)
        counts.append(ParameterCount(part, sum(size for size, _ in sizes), trainable))
    return counts


def set_drop_path(model: InternVLNetwork, drop_path_rate: float = 0.0) -> None:
    """Set the stochastic depth of the vision tower, which grows linearly over its layers up to a rate.

    Args:
        model: a network.
        drop_path_rate: of the last layer, in [0, 1). It acts in training mode, on a frozen tower too.
    Raises:
        ValueError: a rate outside [0, 1).
    """
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate={drop_path_rate} is not in [0, 1)")
    layers = model.vision_model.encoder.layers
    for index, layer in enumerate(layers):
        layer.drop_path.rate = drop_path_rate * index / max(len(layers) - 1, 1)
    model.config.vision_config.drop_path_rate = drop_path_rate


def set_load_balancing(model: InternVLNetwork, router_aux_loss_coef: float) -> None:
    """Set the weight of the load-balancing loss of a mixture of experts; it is written into the config.

    Args:
        model: a network whose decoder has experts.
        router_aux_loss_coef: the weight; 0: training has no such loss.
    Raises:
        ValueError: a decoder without experts, or a weight below 0.
    """
    sparse = [layer for layer in model.language_model.sublayers() if isinstance(layer, SparseMLP)]
    if not sparse or router_aux_loss_coef < 0:
        obstacle = "the model has no experts" if not sparse else "a weight of at least 0 is needed"
        raise ValueError(f"router_aux_loss_coef={router_aux_loss_coef}: {obstacle}")
    config = model.config.llm_config
    config.output_router_logits, config.router_aux_loss_coef = router_aux_loss_coef > 0, router_aux_loss_coef
    for layer in sparse:
        layer.balanced = config.output_router_logits
