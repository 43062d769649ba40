"""LoRA: low-rank adapters of the linear layers, https://arxiv.org/abs/2106.09685.

In: a plain network. Out: the same network, in which the linear layers of the decoder's or the vision tower's blocks
have an adapter, and the adapters alone are trained. PaddleNLP's `LoRAModel` has one matrix A for each of our layers;
upstream's fused layers have one for several of ours, and this module keeps that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from convert.mappings.lora import LoraTarget, lora_targets
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.ops.quantized_linear import QuantizedLinear


class LoRALinear(nn.Layer):
    """Linear layer with a LoRA adapter: x W + b + (alpha / r) dropout(x) A B.

    Args:
        linear: the plain layer; its weight and bias are shared, not copied.
        lora_A: [in, r], which several layers may share.
        lora_alpha: alpha.
        lora_dropout: probability that an input of the adapter is dropped in training mode.
    Attributes:
        weight: [in, out], frozen.
        bias: [out] or None, frozen.
        lora_A: [in, r].
        lora_B: [r, out], zeros at first.
        scale: alpha / r.
    """

    def __init__(self, linear: nn.Linear, lora_A: paddle.Tensor, lora_alpha: float, lora_dropout: float = 0.0):
        super().__init__()
        self._hold(linear)
        self.lora_A = lora_A
        rank, (_, outputs) = lora_A.shape[1], shape_of(linear)
        self.lora_B = self.create_parameter(
            [rank, outputs], dtype=lora_A.dtype, default_initializer=nn.initializer.Constant(0.0)
        )
        self.scale = lora_alpha / rank
        self.dropout = lora_dropout

    @property
    def lora_alpha(self) -> float:
        """Alpha."""
        return self.scale * self.lora_A.shape[1]

    def _hold(self, linear: nn.Layer) -> None:
        self.weight, self.bias = linear.weight, linear.bias

    def _base(self, x: paddle.Tensor) -> paddle.Tensor:
        """x W + b."""
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [.., in]
        dropped = F.dropout(x, self.dropout, training=self.training) if self.dropout else x
        return self._base(x) + F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scale

    def merged(self) -> nn.Linear:
        """A plain layer with the weight W + (alpha / r) A B, computed in float32."""
        delta = paddle.matmul(self.lora_A.astype("float32"), self.lora_B.astype("float32")) * self.scale
        with paddle.no_grad():
            self.weight.set_value((self.weight.astype("float32") + delta).astype(self.weight.dtype))
        with paddle.LazyGuard():  # no memory for weights that are replaced at once
            linear = nn.Linear(*self.weight.shape, bias_attr=False)
        linear.weight, linear.bias = self.weight, self.bias
        return linear


class QuantizedLoRALinear(LoRALinear):
    """QLoRA: a LoRA adapter over a quantized weight of 8 or 4 bits. Arguments: see `LoRALinear`.

    Attributes:
        base: the `QuantizedLinear`, frozen.
    """

    def _hold(self, linear: QuantizedLinear) -> None:
        self.base = linear

    def _base(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.base(x)

    def merged(self) -> nn.Linear:
        """Not possible.

        Raises:
            ValueError: always; names the way out.
        """
        raise ValueError(
            "an adapter can't be merged into quantized weights; save_adapter writes it, and merge-lora or adapter= "
            "merges it into the float model"
        )


def shape_of(linear: nn.Layer) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, plain or quantized."""
    return (linear.inputs, linear.outputs) if isinstance(linear, QuantizedLinear) else tuple(linear.weight.shape)


def new_lora_a(inputs: int, rank: int, dtype: str) -> paddle.Tensor:
    """Parameter A [in, r], initialised as PEFT does: uniform within 1 / sqrt(in)."""
    bound = 1.0 / math.sqrt(inputs)  # kaiming_uniform(a=sqrt(5))
    initializer = nn.initializer.Uniform(-bound, bound)
    return paddle.create_parameter([inputs, rank], dtype=dtype, default_initializer=initializer)


def add_lora(
    model: InternVLNetwork,
    use_llm_lora: int = 8,
    use_backbone_lora: int = 0,
    lora_alpha: float | None = 16,
    lora_dropout: float = 0.0,
) -> InternVLNetwork:
    """Add LoRA adapters to a model, in place, and freeze everything else.

    Every linear layer of a block gets parameters `lora_A` [in, r] and `lora_B` [r, out]. Layers that upstream has as
    one (q, k and v of InternLM2 and Phi-3, gate and up of Phi-3) share their `lora_A`.

    Args:
        model: loaded with `trainable=True`.
        use_llm_lora: rank r in the language model; 0: no adapters there.
        use_backbone_lora: rank r in the vision tower; 0: none.
        lora_alpha: alpha; an adapter's output is scaled by alpha / r. None: twice each tower's rank, as upstream's.
        lora_dropout: dropout of the adapters' inputs; upstream's is 0.05.
    Returns:
        The model.
    Raises:
        ValueError: a model that is prepared for inference or has adapters, a negative rank, or both ranks 0.
    Source: upstream `modeling_internvl_chat.py`, `wrap_llm_lora` and `wrap_backbone_lora`; PEFT 0.10 `LoraLayer`.
    """
    if min(use_llm_lora, use_backbone_lora) < 0 or not use_llm_lora + use_backbone_lora:
        raise ValueError(
            f"use_llm_lora={use_llm_lora}, use_backbone_lora={use_backbone_lora}: ranks, one of them above 0"
        )
    freeze_base(model)
    ranks = {"language_model": use_llm_lora, "vision_model": use_backbone_lora}
    for target in targets_of(model):
        rank = ranks.get(target.tower, 0)
        if rank and target.in_block:
            adapt(model, target.ours, rank, 2 * rank if lora_alpha is None else lora_alpha, lora_dropout)
    return model


def freeze_base(model: InternVLNetwork) -> None:
    """Freeze a plain model before adapters are added.

    Raises:
        ValueError: a model that is prepared for inference, has adapters, or was loaded with one merged.
    """
    if model.is_prepared:
        raise ValueError("the model is prepared for inference; load it with from_pretrained(..., trainable=True)")
    if lora_layers(model):
        raise ValueError("the model has LoRA adapters already; merge_lora(model) makes it plain")
    merged = getattr(model, "merged_adapter", None)
    if merged is not None:  # new adapters would be saved as those of the base model without it
        raise ValueError(
            f"the adapter {merged} is merged in the model's weights; write a plain checkpoint first "
            f"(paddle-internvl merge-lora {merged} OUT), and load that one"
        )
    for parameter in model.parameters():
        parameter.stop_gradient = True


def adapt(model: nn.Layer, names: Sequence[str], rank: int, lora_alpha: float, lora_dropout: float = 0.0) -> None:
    """Add an adapter to linear layers, which share their A."""
    lora_a = None
    for name in names:
        linear = sublayer(model, name)
        quantized = isinstance(linear, QuantizedLinear)
        if lora_a is None:
            dtype = linear.compute_dtype if quantized else linear.weight.dtype
            lora_a = new_lora_a(shape_of(linear)[0], rank, dtype)
        adapted = QuantizedLoRALinear if quantized else LoRALinear
        replace_layer(model, name, adapted(linear, lora_a, lora_alpha, lora_dropout))


def merge_lora(model: InternVLNetwork) -> InternVLNetwork:
    """Merge the LoRA adapters of a model into its weights, in place.

    Args:
        model: with adapters.
    Returns:
        The plain model, all of whose parameters are trainable.
    Raises:
        ValueError: the model has no adapters.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA adapters to merge")
    for name, layer in layers.items():
        replace_layer(model, name, layer.merged())
    for parameter in model.parameters():
        parameter.stop_gradient = False
    return model


def lora_layers(model: nn.Layer) -> dict[str, LoRALinear]:
    """The layers with an adapter, by name."""
    return {name: layer for name, layer in model.named_sublayers() if isinstance(layer, LoRALinear)}


def targets_of(model: InternVLNetwork) -> list[LoraTarget]:
    """The LoRA targets of a network."""
    return lora_targets(config_dict(model))


def config_dict(model: InternVLNetwork) -> dict:
    """The fields of a network's config.json, those of quantization left out: adapters fit the float weights."""
    config = model.config
    parts = {"": config, "llm_config": config.llm_config, "vision_config": config.vision_config}
    fields = {part: {k: v for k, v in vars(c).items() if k != "quantization_config"} for part, c in parts.items()}
    return {**fields.pop(""), **fields, "model_type": config.model_type}


def sublayer(model: nn.Layer, name: str) -> nn.Layer:
    """The layer of a dotted name."""
    for part in name.split("."):
        model = getattr(model, part)
    return model


def replace_layer(model: nn.Layer, name: str, layer: nn.Layer) -> None:
    """Put a layer in the place of the one with a dotted name."""
    parent, _, attribute = name.rpartition(".")
    setattr(sublayer(model, parent), attribute, layer)
