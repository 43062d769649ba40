"""Preparation for inference: fixed weights, native CPU layers, caches of visual tokens and of KV prefixes.

In: a plain, filled network. Out: the same network, faster and no longer trainable. `from_pretrained` calls this unless
`trainable=True`; call it yourself after training. Quantized and memory-mapped storage is chosen by the loading plan.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import paddle
from paddle import nn
from paddlenlp.utils.log import logger

from convert.quant_layout import quantize
from paddle_internvl import runtime
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.models.pretrained import InternVLPretrainedModel, WeightsSnapshot
from paddle_internvl.models.vision import InternVisionNetwork
from paddle_internvl.ops import devices, dispatch
from paddle_internvl.ops.dispatch import Case
from paddle_internvl.ops.linear import NativeLinear, VectorLinear, WideningEmbedding
from paddle_internvl.ops.native_layers import (
    NativeDecoder,
    NativeLayer,
    UnsupportedLayerError,
    native_decoder_layer,
    native_projector,
    native_vision_layer,
)
from paddle_internvl.ops.quantized_linear import QuantizedLinear


def prepare_for_inference(
    model: InternVLPretrainedModel, bfloat16: bool = False, int8_activations: bool = False
) -> InternVLPretrainedModel:
    """Prepare a model for inference, in place.

    Its parameters get `stop_gradient`; on a CPU with kernels linear layers and whole layers become native; visual
    tokens and KV prefixes are cached from here on. The model can't be trained or moved afterwards, and a weight that
    changes is an error at the next prompt.

    Args:
        model: a plain model, filled.
        bfloat16: bfloat16 arithmetic of the CPU's kernels: what goes into products and attention is rounded, sums,
            norms and softmax stay float32. Needs `kernels.library.bfloat16_isa`.
        int8_activations: products of many rows (prefill, vision) in int8 by the CPU's kernels: of the quantized layers,
            and of the vision tower's linear layers, whose weights are quantized to int8 here.
    Returns:
        The model, in evaluation mode.
    Raises:
        ValueError: it is prepared already, or int8 activations have no quantized layers of the CPU's kernels.
    """
    if model.is_prepared:
        raise ValueError("the model is prepared for inference already")
    for parameter in model.parameters():
        parameter.stop_gradient = True
    placed = any(isinstance(layer, DecoderForCausalLM) and layer.layer_devices for layer in model.sublayers())
    if int8_activations:
        _take_int8_activations(model)
    if next(iter(model.parameters())).place.is_cpu_place() and not placed:
        _replace_layers(model, bfloat16)
        _build_native_layers(model, bfloat16)
    if isinstance(model, InternVLNetwork):
        model.feature_cache = FeatureCache()
    snapshot = WeightsSnapshot(model)
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, InternVLPretrainedModel):
            layer.weights_snapshot = snapshot
    return model.eval()


def _take_int8_activations(model: nn.Layer) -> None:
    """Let the quantized layers take int8 activations; quantize the vision tower's linear layers to int8."""
    layers = [layer for layer in model.sublayers() if isinstance(layer, QuantizedLinear)]
    if not any(layer.implementation == "native" for layer in layers):
        raise ValueError(
            "int8_activations=True needs quantized weights on a CPU with kernels: add load_in_8bit=True or "
            "load_in_4bit=True, or load a quantized folder"
        )
    towers = [network for network in model.sublayers(include_self=True) if isinstance(network, InternVisionNetwork)]
    places = [
        (parent, name, child)
        for tower in towers
        for parent in tower.encoder.layers.sublayers()
        for name, child in parent._sub_layers.items()
        if type(child) is nn.Linear
    ]
    with ThreadPoolExecutor(runtime.cpu_cores()) as pool:
        made = list(pool.map(_quantized, (child for _, _, child in places)))
    for (parent, name, _), layer in zip(places, made):
        setattr(parent, name, layer)
    for layer in [*layers, *made]:
        layer.int8_activations = True


def _quantized(plain: nn.Linear) -> QuantizedLinear:
    """A linear layer with its weight in int8, one scale for each output."""
    layer = QuantizedLinear(*plain.weight.shape, 8, -1, False)
    layer.bias = plain.bias
    integers, scales = quantize(plain.weight.astype("float32").numpy(), 8, -1, lambda scales: scales)
    layer.set_weight(integers, scales, devices.place_of("cpu"), "float32")
    return layer


def _replace_layers(model: nn.Layer, bfloat16: bool) -> None:
    """Put the CPU's own linear layers and embedding in the place of Paddle's."""
    native = dispatch.choose_for("linear", Case("cpu", "float32")) == "native"
    for layer in model.sublayers(include_self=True):
        for name, child in list(layer._sub_layers.items()):
            if type(child) is nn.Linear:
                replacement = NativeLinear(child, bfloat16) if native else VectorLinear(child)
            elif type(child) is nn.Embedding and child.weight.dtype == paddle.bfloat16:
                replacement = WideningEmbedding(child)
            else:
                continue
            for hooks in ("_forward_pre_hooks", "_forward_post_hooks"):  # a sharded layer's sum over ranks is one
                setattr(replacement, hooks, getattr(child, hooks))
            setattr(layer, name, replacement)


def _build_native_layers(model: nn.Layer, bfloat16: bool) -> None:
    """Build the C structs of the layers that the kernels implement; other layers run as modules."""
    for network in model.sublayers(include_self=True):
        if isinstance(network, DecoderForCausalLM):
            layers, head_dim = network.model.layers, network.config.head_dim
            if _build(layers, native_decoder_layer, network.config, head_dim, bfloat16):
                network.model.native = NativeDecoder(layers)
        elif isinstance(network, InternVisionNetwork):
            layers = network.encoder.layers
            _build(layers, native_vision_layer, network.config, layers[0].attn.head_dim, bfloat16)
        elif isinstance(network, InternVLNetwork):
            network.native_projector = _build_projector(network, bfloat16)


def _build_projector(model: InternVLNetwork, bfloat16: bool) -> NativeLayer | None:
    """The C struct of the projector, if the kernels implement it."""
    merge, version = model.config.tile_sizes.merge, model.ps_version
    return _if_supported("the projector runs", lambda: native_projector(model.mlp1, merge, version, bfloat16))


def _build(layers: nn.LayerList, native_layer: Callable, config, head_dim: int, bfloat16: bool) -> bool:
    """Build the struct of each layer, or of none; returns whether it was done."""
    built = _if_supported(
        f"the layers of {type(config).__name__} run",
        lambda: [native_layer(layer, config, bfloat16) for layer in layers],
        head_dim,
    )
    for layer, native in zip(layers, built or ()):
        layer.native = native
    return built is not None


def _if_supported(subject: str, build: Callable, head_dim: int | None = None):
    """What `build` returns; None, with its reason in the log, where the kernels don't implement it."""
    if dispatch.choose_for("layers", Case("cpu", "float32", head_dim=head_dim)) != "native":
        return None
    try:
        return build()
    except UnsupportedLayerError as obstacle:
        logger.info(f"{subject} as modules: {obstacle}")
        return None
