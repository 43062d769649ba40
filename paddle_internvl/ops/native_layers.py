"""Native layers: a whole decoder or vision layer in one call of the C++ library, and all decoder layers in one.

In: layers of `models` whose weights are fixed, and a call's activations. Out: what the layers' own forward returns,
which is the definition and also does what a kernel can't: hooks, packed segments, sharded layers. The C struct of a
layer is built once, by `checkpoints.preparation`; it points at the layer's tensors, which are kept alive here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import nn

from paddle_internvl.configuration.upstream import UpstreamConfig
from paddle_internvl.kernels import structs
from paddle_internvl.kernels.structs import KVView, address
from paddle_internvl.ops.linear import NativeLinear, require_no_grad
from paddle_internvl.ops.quantized_linear import QuantizedLinear

_ATTENTION_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP_LINEARS = ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj")
_VISION_LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
# Fields of a config that the kernels implement, or that change nothing within a layer. A config with another field set
# is refused, so that a new family runs on its modules until the kernels know the field.
_DECODER_FIELDS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "qk_norm", "hidden_act", "rms_norm_eps", "max_position_embeddings", "rope_theta",
    "rope_scaling", "original_max_position_embeddings", "sliding_window", "use_sliding_window", "initializer_range",
    "architectures", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
    "decoder_sparse_step", "mlp_only_layers", "output_router_logits", "router_aux_loss_coef",
}  # fmt: skip
_VISION_FIELDS = {
    "num_channels", "patch_size", "image_size", "qkv_bias", "hidden_size", "num_attention_heads", "intermediate_size",
    "qk_normalization", "num_hidden_layers", "norm_type", "hidden_act", "layer_norm_eps", "drop_path_rate",
    "initializer_range", "initializer_factor",
}  # fmt: skip


class UnsupportedLayerError(ValueError):
    """A layer that the kernels don't implement; the message gives the reason."""


@dataclass(eq=False)
class NativeLayer:
    """C struct of one layer.

    Attributes:
        struct: a `structs.DecoderLayer`, `structs.VisionLayer` or `structs.Projector`.
        tensors: every tensor that the struct points at.
        within: the layers within; a native call would skip their forward hooks, and a forward of their own.
    """

    struct: object
    tensors: list[paddle.Tensor]
    within: list[nn.Layer]

    def __post_init__(self):
        self._hooks, self._attributes = _hooks_of(self.within), [layer.__dict__ for layer in self.within]

    @property
    def hooked(self) -> bool:
        """Whether a layer within has forward hooks, or a forward of its own, which replaces its class's."""
        return any(self._hooks) or any("forward" in attributes for attributes in self._attributes)

    def decode(self, x, cos, sin, key_mask, cache, index: int) -> paddle.Tensor:
        """The forward of a decoder layer; see `NativeDecoder`."""
        array = (structs.DecoderLayer * 1)(self.struct)
        return _run_decoder(array, x, cos, sin, key_mask, cache, index, last_only=False)

    def encode(self, x: paddle.Tensor) -> paddle.Tensor:
        """The forward of a vision layer, [T, 1+P, C]."""
        require_no_grad(x)
        x = x.contiguous()
        out = _empty(x.shape, x)
        structs.run_vision_layer(self.struct, structs.VisionCall(x.data_ptr(), out.data_ptr(), x.shape[0], x.shape[1]))
        return out

    def project(self, hidden_state: paddle.Tensor) -> paddle.Tensor:
        """Pixel shuffle and the projector: [T, 1+P, C] -> [T, N, D]."""
        require_no_grad(hidden_state)
        x, side = hidden_state.contiguous(), math.isqrt(hidden_state.shape[1] - 1)
        out = _empty([x.shape[0], (side // self.struct.merge) ** 2, self.struct.fc2.outputs], x)
        structs.run_projector(self.struct, structs.ProjectorCall(x.data_ptr(), out.data_ptr(), x.shape[0], side))
        return out

    def __deepcopy__(self, _memo):
        raise TypeError("a model prepared for inference can't be copied; load another one, or one with trainable=True")

    __reduce__ = __deepcopy__


class NativeDecoder:
    """All layers of a decoder in one native call.

    Args:
        layers: the decoder's layers, each with its `NativeLayer` in `.native`.
    """

    def __init__(self, layers: Sequence[nn.Layer]):
        self._array = (structs.DecoderLayer * len(layers))(*(layer.native.struct for layer in layers))
        self._skipped = NativeLayer(None, [], [*layers, *(each for layer in layers for each in layer.native.within)])

    @property
    def hooked(self) -> bool:
        """Whether a layer, or a layer within one, has forward hooks or a forward of its own."""
        return self._skipped.hooked

    def __call__(self, x, cos, sin, key_mask, cache, last_only: bool) -> paddle.Tensor:
        """The forwards of all layers, one after the other.

        Args:
            x: [B, L, D].
            cos: [B or 1, L, 1, E].
            sin: as cos.
            key_mask: bool [B, M] or None.
            cache: a KV cache or None.
            last_only: return only the last position, [B, 1, D].
        """
        return _run_decoder(self._array, x, cos, sin, key_mask, cache, 0, last_only)


def _run_decoder(array, x, cos, sin, key_mask, cache, first: int, last_only: bool) -> paddle.Tensor:
    require_no_grad(x)
    (b, length, d), count, e = x.shape, len(array), array[0].head_dim
    if cache is None:
        shape = [b, length, array[0].kv_heads, e]
        keys, values = ([_empty(shape, x)] * count for _ in range(2))
        view = KVView(keys, values, paddle.full([b], length, "int64"), array[0].kv_heads)
        layers = slice(count)
    else:
        view, layers = cache.view(length), slice(first, first + count)
    x, layout = x.contiguous(), view.layout()
    cos, sin = (table.expand([b, -1, -1, -1]).contiguous() if table.shape[0] != b else table for table in (cos, sin))
    mask, width = (None, 0) if key_mask is None else (key_mask.contiguous(), key_mask.shape[1])
    out = _empty([b, 1 if last_only else length, d], x)
    call = structs.DecoderCall(
        x.data_ptr(), out.data_ptr(), cos.data_ptr(), sin.data_ptr(), layout, layout, view.totals.data_ptr(),
        address(mask), width, b, length, last_only,
    )  # fmt: skip
    structs.run_decoder_layers(array, call, view.keys[layers], view.values[layers])
    return out


def _empty(shape, like: paddle.Tensor) -> paddle.Tensor:
    return paddle._C_ops.empty(shape, like.dtype, like.place)  # paddle.empty takes six times as long


def native_decoder_layer(layer, config: UpstreamConfig, bfloat16: bool = False) -> NativeLayer:
    """The C struct of a `DecoderLayer`.

    Args:
        layer: with its weights.
        config: of the decoder.
        bfloat16: bfloat16 arithmetic; experts of a sparse MLP have float32's.
    Raises:
        UnsupportedLayerError: the kernels don't implement the layer.
    """
    _require_supported_fields(config, _DECODER_FIELDS)
    builder = _StructBuilder(layer)
    q, k, v, o = map(builder.linear, _ATTENTION_LINEARS)
    is_sparse = hasattr(layer.mlp, "experts")
    down, gate, up = (structs.Dense(),) * 3 if is_sparse else map(builder.linear, _MLP_LINEARS)
    sparse = _sparse_mlp(builder, layer.mlp) if is_sparse else structs.SparseMLP()
    attention = layer.self_attn
    first, second, e = layer.input_layernorm, layer.post_attention_layernorm, attention.head_dim
    head_norms = (attention.q_norm.weight, attention.k_norm.weight) if attention.qk_norm else (None, None)
    norms = [builder.floats(tensor) for tensor in (first.weight, second.weight, *head_norms)]
    struct = structs.DecoderLayer(
        q, k, v, o, down, gate, up, sparse, *norms, q.inputs, q.outputs // e, k.outputs // e, e, gate.outputs,
        attention.window or 0, first.eps, second.eps, bfloat16,
    )  # fmt: skip
    return builder.build(struct)


def _sparse_mlp(builder: _StructBuilder, mlp) -> structs.SparseMLP:
    """The C struct of a `SparseMLP`."""
    experts = mlp.experts
    if experts.first is not None:
        raise UnsupportedLayerError("the kernels don't implement a layer with a share of the experts")
    router, gate_up, down = (
        builder.linear("mlp.gate"), builder.stacked(experts.gate_up_proj), builder.stacked(experts.down_proj)
    )  # fmt: skip
    return structs.SparseMLP(router, gate_up, down, experts.here, mlp.active, mlp.normalised)


def native_vision_layer(layer, config: UpstreamConfig, bfloat16: bool = False) -> NativeLayer:
    """The C struct of an `InternVisionEncoderLayer`.

    Args:
        layer: with its weights.
        config: of the tower.
        bfloat16: bfloat16 arithmetic.
    Raises:
        UnsupportedLayerError: the kernels don't implement the layer.
    """
    _require_supported_fields(config, _VISION_FIELDS)
    builder = _StructBuilder(layer)
    qkv, proj, fc1, fc2 = map(builder.linear, _VISION_LINEARS)
    attention, norms = layer.attn, (layer.norm1, layer.norm2)
    floats = [builder.floats(tensor) for norm in norms for tensor in (norm.weight, getattr(norm, "bias", None))]
    qk_norms = (attention.q_norm.weight, attention.k_norm.weight) if attention.qk_normalization else (None, None)
    floats += [builder.floats(tensor) for tensor in (*qk_norms, layer.ls1, layer.ls2)]
    centred = isinstance(layer.norm1, nn.LayerNorm)
    struct = structs.VisionLayer(
        qkv, proj, fc1, fc2, *floats, qkv.inputs, attention.num_heads, fc1.outputs, centred, attention.eps,
        bfloat16,
    )  # fmt: skip
    return builder.build(struct)


def native_projector(projector: nn.Sequential, merge: int, version: str, bfloat16: bool = False) -> NativeLayer:
    """The C struct of `models.projector`'s pixel shuffle and `mlp1`.

    Args:
        projector: `mlp1`.
        merge: patches along the side of a visual token.
        version: of the pixel shuffle, 'v1' or 'v2'.
        bfloat16: bfloat16 arithmetic.
    Raises:
        UnsupportedLayerError: the kernels don't implement the projector.
    """
    builder, norm = _StructBuilder(projector), projector[0]
    fc1, fc2 = builder.linear("1"), builder.linear("3")
    floats = [builder.floats(tensor) for tensor in (norm.weight, norm.bias)]
    width = fc1.inputs // merge**2
    struct = structs.Projector(fc1, fc2, *floats, width, merge, version == "v1", norm._epsilon, bfloat16)
    return builder.build(struct, include_self=True)


def _require_supported_fields(config: UpstreamConfig, supported: set[str]) -> None:
    """Refuse a config with a field that the kernels don't support and that is not at its default."""
    for base in type(config).__mro__:
        if base is UpstreamConfig:
            return
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            if parameter.default is parameter.empty or name in supported:
                continue
            default = parameter.default or False  # None is a field's False too
            if (getattr(config, name, default) or False) != default:
                raise UnsupportedLayerError(f"the kernels don't implement {name}={getattr(config, name)!r}")


class _StructBuilder:
    """Takes the addresses of a layer's tensors, and checks that none is left out."""

    def __init__(self, layer: nn.Layer):
        self._layer = layer
        self._tensors: list[paddle.Tensor] = []

    def floats(self, tensor: paddle.Tensor | None) -> int | None:
        """Address of a float32 tensor; None for None."""
        if tensor is None:
            return None
        if tensor.dtype != paddle.float32 or not tensor.is_contiguous():
            raise UnsupportedLayerError(f"the kernels take float32 norms and biases, not {tensor.dtype}")
        self._tensors.append(tensor)
        return address(tensor)

    def linear(self, path: str):
        """Struct of the linear layer at a path within the layer."""
        linear = self._layer
        for name in path.split("."):
            linear = getattr(linear, name)
        bias = self.floats(linear.bias) and linear.bias
        if type(linear) is NativeLinear:
            self._tensors.append(linear.weight)
            return structs.dense(linear.weight, *linear.weight.shape, bias=bias)
        if type(linear) is QuantizedLinear and linear.implementation == "native":
            held = (linear.quant_weight, linear.quant_scale, linear.quant_offset)
            self._tensors += [tensor for tensor in held if tensor is not None]
            return structs.dense(
                linear.quant_weight, linear.inputs, linear.outputs, bits=linear.bits, scales=linear.quant_scale,
                offsets=linear.quant_offset, group=linear.group_size, bias=bias,
                int8_activations=linear.int8_activations,
            )  # fmt: skip
        raise UnsupportedLayerError(f"the kernels don't implement {type(linear).__name__} ({path})")

    def stacked(self, linear):
        """Struct of the first of the linear layers of all experts."""
        stored = linear.stacked
        self._tensors += [tensor for tensor in (stored.numbers, stored.scales, stored.offsets) if tensor is not None]
        return structs.dense(
            stored.numbers, linear.inputs, linear.outputs, bits=linear.bits, scales=stored.scales,
            offsets=stored.offsets, group=stored.group, count=linear.experts,
            int8_activations=linear.bits != 0 and linear.int8_activations,
        )  # fmt: skip

    def build(self, struct, include_self: bool = False) -> NativeLayer:
        """The struct with its tensors, if these are all tensors of the layer.

        Args:
            struct: of the layer.
            include_self: whether the native call skips the hooks of the layer itself too.
        Raises:
            UnsupportedLayerError: the layer holds a tensor that the struct has no field for.
        """
        taken = {id(tensor) for tensor in self._tensors}
        named = [*self._layer.named_parameters(), *self._layer.named_buffers()]
        left = [name for name, tensor in named if tensor is not None and id(tensor) not in taken]
        if left:
            raise UnsupportedLayerError(f"the kernels don't implement {', '.join(left)}")
        return NativeLayer(struct, self._tensors, self._layer.sublayers(include_self=include_self))


def _hooks_of(layers: list[nn.Layer]) -> list[dict]:
    return [hooks for layer in layers for hooks in (layer._forward_pre_hooks, layer._forward_post_hooks)]
