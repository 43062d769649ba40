"""The form 'native' of whole layers: one call of the library in the place of a layer's forward.

In: a layer of `decoder` or of `vision`, and what its forward is given. Out: what that returns. The definition is the
layer's own forward, module by module, which also does what a kernel can't: gradients, hooks, layers shared out between
processes. It knows no checkpoint; what the kernels are told of a layer is kept until its weights lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_

import paddle
from paddle import nn

from paddle_internvl.kernels import layers as kernels
from paddle_internvl.kernels.layers import KVView, address
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.linear import Linear
from paddle_internvl.ops.quantized_linear import QuantizedLinear

_DECODER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj",
            "mlp.gate_proj", "mlp.up_proj")  # fmt: skip
_VISION = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class _UnfitError(Exception):
    """Why a layer can't be told to the kernels."""


@dataclass(eq=False)
class _Told:
    """What the kernels know of a layer. The layer holds it; a copy of the layer gets None in its place.

    Whether it still holds is asked of every layer at every token: so it is asked of whole lists, not one by one.

    Attributes:
        struct: for the library; None where it can't be: then `reason` says why. holders: the dicts in which the layer
            and those within hold layers, parameters and buffers, and parts: what was in them. tensors: all that the
            struct points at, and pointers: where they lay. hooks: the dicts of the hooks of those within, and own: of
            their attributes. row: those of the layers that it was last run with, and their structs side by side.
    """

    struct: object
    reason: str
    holders: list[dict]
    parts: list
    tensors: list[paddle.Tensor]
    pointers: list[int]
    hooks: list[dict]
    own: list[dict]
    row: tuple[list[_Told], object] | None = None

    def __reduce__(self):
        return type(None), ()

    @property
    def current(self) -> bool:
        """Whether the layer is still made of the same parts, and its weights lie where they lay."""
        now = _all_in(self.holders)
        same = len(now) == len(self.parts) and all(map(is_, now, self.parts))
        return same and _addresses(self.tensors) == self.pointers

    @property
    def called_otherwise(self) -> bool:
        """Whether calling a layer within is more than its class's forward."""
        return any(self.hooks) or any("forward" in own for own in self.own)


def decoder_layers(
    layers: Sequence, x, cos, sin, key_mask, cache, first: int = 0, last_only: bool = False
) -> paddle.Tensor | None:
    """The forwards of some `DecoderLayer`s, one after the other, by the form 'native'; None where that is not the form
    to take: then nothing has been done.

    Args:
        layers: more than one are called past their hooks, and so refused where there are any. x: [B, L, D].
        cos, sin: [B or 1, L, 1, E]. key_mask: bool [B, M] or None. cache: or None. first: number of the first layer.
        last_only: only what the last position becomes, [B, 1, D].
    Raises:
        ValueError: `use_forms` names the form, and a layer can't be told to the kernels; says why.
    """
    e = layers[0].self_attn.head_dim
    if dispatch.choose_form("decoder_layer", x, e) != "native":
        return None
    if len(layers) > 1 and any(map(_called_otherwise, layers)):
        return None
    told = [_told_of("decoder_layer", layer, _tell_decoder) for layer in layers]
    if None in told:
        return None
    (b, length, d), count = x.shape, len(layers)
    if cache is None:
        kv_heads = told[0].struct.kv_heads
        room, totals = [b, length, kv_heads, e], paddle.full([b], length, "int64")
        memory = KVView([_empty(room, x)] * count, [_empty(room, x)] * count, totals, kv_heads)
    else:
        memory = cache.view(length)
    x, places = x.contiguous(), memory.places()
    cos, sin = (table.expand([b, -1, -1, -1]).contiguous() if table.shape[0] != b else table for table in (cos, sin))
    mask, width = (None, 0) if key_mask is None else (key_mask.contiguous(), key_mask.shape[1])
    out = _empty([b, 1 if last_only else length, d], x)
    call = kernels.DecoderCall(
        x.data_ptr(), out.data_ptr(), cos.data_ptr(), sin.data_ptr(), places, places, memory.totals.data_ptr(),
        address(mask), width, b, length, last_only,
    )  # fmt: skip
    own = slice(first, first + count) if cache is not None else slice(count)
    kernels.run_decoder_layers(_array(told), call, memory.keys[own], memory.values[own])
    return out


def vision_layer(layer, x: paddle.Tensor) -> paddle.Tensor | None:
    """An `InternVisionEncoderLayer`'s forward by the form 'native'; None where that is not the form to take.

    Args:
        x: [T, 1+P, C].
    Raises:
        ValueError: as `decoder_layer`.
    """
    if dispatch.choose_form("vision_layer", x, x.shape[-1] // layer.attn.num_heads) != "native":
        return None
    told = _told_of("vision_layer", layer, _tell_vision)
    if told is None:
        return None
    x = x.contiguous()
    out = _empty(x.shape, x)
    call = kernels.VisionCall(x.data_ptr(), out.data_ptr(), x.shape[0], x.shape[1])
    kernels.run_vision_layer(told.struct, call)
    return out


def _empty(shape, like: paddle.Tensor) -> paddle.Tensor:
    return paddle._C_ops.empty(shape, like.dtype, like.place)  # paddle.empty takes six times as long


def _told_of(operation: str, layer: nn.Layer, tell: Callable) -> _Told | None:
    """What the kernels know of a layer, brought up to date; None where they can't take it."""
    told = layer.__dict__.get("_told")
    if told is None or not told.current:
        told = layer.__dict__["_told"] = _tell(layer, tell)
    reason = told.reason or _of_the_moment(layer, told)
    if reason:
        dispatch.refuse(operation, "native", reason)
        return None
    return told


def _called_otherwise(layer: nn.Layer) -> bool:
    """Whether calling a layer is more than its class's forward."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks or "forward" in layer.__dict__)


def _array(told: list[_Told]):
    """Their structs side by side; those of the same layers as before are not copied again."""
    row, array = told[0].row or ([], None)
    if len(row) != len(told) or any(a is not b for a, b in zip(row, told)):
        array = (kernels.DecoderLayer * len(told))(*(each.struct for each in told))
        told[0].row = told, array
    return array


def _of_the_moment(layer: nn.Layer, told: _Told) -> str:
    """What may come and go without the layer being another."""
    if layer.training:
        return "it is being trained"
    if told.called_otherwise:
        return "a layer within it has hooks"
    return ""


def _tell(layer: nn.Layer, tell: Callable) -> _Told:
    teller = _Teller()
    struct, reason = None, ""
    try:
        struct = tell(layer, teller)
    except _UnfitError as unfit:
        reason = str(unfit)
    within = layer.sublayers()
    holders = [
        held for each in (layer, *within) for held in (each._sub_layers, each._parameters, each._buffers) if held
    ]
    hooks = [held for each in within for held in (each._forward_pre_hooks, each._forward_post_hooks)]
    return _Told(
        struct, reason, holders, _all_in(holders), teller.tensors, _addresses(teller.tensors), hooks,
        [each.__dict__ for each in within],
    )  # fmt: skip


def _all_in(holders: list[dict]) -> list:
    return list(chain.from_iterable(map(dict.values, holders)))


def _addresses(tensors: list[paddle.Tensor]) -> list[int]:
    return list(map(paddle.Tensor.data_ptr, tensors))


class _Teller:
    """Takes addresses, and notes whose they are."""

    def __init__(self):
        self.tensors: list[paddle.Tensor] = []

    def floats(self, tensor: paddle.Tensor | None) -> int | None:
        """Of float32 numbers."""
        if tensor is not None and (tensor.dtype != paddle.float32 or not tensor.is_contiguous()):
            raise _UnfitError(f"its numbers are {tensor.dtype}, not float32")
        return self._noted(tensor)

    def linear(self, layer: nn.Layer):
        """Of a linear layer's weight, in any of the ways it may be held."""
        if type(layer) in (nn.Linear, Linear):
            weight, (inputs, outputs), how = layer.weight, layer.weight.shape, {}
            if weight.dtype not in (paddle.float32, paddle.bfloat16):
                raise _UnfitError(f"its weights are {weight.dtype}")
        elif type(layer) is QuantizedLinear and layer.form != "kernel":
            weight, inputs, outputs = layer.quant_weight, layer.inputs, layer.outputs
            how = {"bits": layer.bits, "scales": layer.quant_scale, "group": layer.group_size}
            how["offsets"] = layer.quant_offset
        else:
            raise _UnfitError(f"it holds a {type(layer).__name__}")
        for tensor in (weight, how.get("scales"), how.get("offsets"), layer.bias):
            self._noted(tensor)
        self.floats(layer.bias)
        return kernels.dense(weight, inputs, outputs, bias=layer.bias, **how)

    def _noted(self, tensor: paddle.Tensor | None) -> int | None:
        if tensor is not None:
            self.tensors.append(tensor)
        return address(tensor)


def _part(layer: nn.Layer, path: str) -> nn.Layer:
    for name in path.split("."):
        layer = getattr(layer, name)
    return layer


def _tell_decoder(layer, teller: _Teller):
    q, k, v, o, down, gate, up = (teller.linear(_part(layer, path)) for path in _DECODER)
    first, second, e = layer.input_layernorm, layer.post_attention_layernorm, layer.self_attn.head_dim
    return kernels.DecoderLayer(
        q, k, v, o, down, gate, up, teller.floats(first.weight), teller.floats(second.weight), q.inputs, q.outputs // e,
        k.outputs // e, e, gate.outputs, layer.self_attn.window or 0, first.eps, second.eps,
    )  # fmt: skip


def _tell_vision(layer, teller: _Teller):
    qkv, proj, fc1, fc2 = (teller.linear(_part(layer, path)) for path in _VISION)
    attention, norms = layer.attn, (layer.norm1, layer.norm2)
    numbers = [teller.floats(tensor) for norm in norms for tensor in (norm.weight, getattr(norm, "bias", None))]
    both = (attention.q_norm.weight, attention.k_norm.weight) if attention.qk_normalization else (None, None)
    numbers += [teller.floats(tensor) for tensor in (*both, layer.ls1, layer.ls2)]
    centred = isinstance(layer.norm1, nn.LayerNorm)
    return kernels.VisionLayer(
        qkv, proj, fc1, fc2, *numbers, qkv.inputs, attention.num_heads, fc1.outputs, centred, attention.eps
    )
