"""C structs of `csrc/layer_arguments.h` by ctypes: layers, one call, and the layout of a KV cache.

In: tensors of a layer and of one call. Out: the layer's result. Shapes are checked here, since the kernels take bare
addresses. The caller keeps alive the tensors that a struct points at.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import paddle

from paddle_internvl.kernels import library

_FLOATS = {paddle.float32: 0, paddle.bfloat16: 1}  # Kind of linear_arguments.h
_INTEGERS = {8: 2, 4: 3}
_POINTER, _NUMBER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def _struct(name: str, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items()), "__slots__": ()})


Dense = _struct(
    "Dense", kind=ctypes.c_int, weight=_POINTER, scales=_POINTER, offsets=_POINTER, inputs=_NUMBER, outputs=_NUMBER,
    group=_NUMBER, int8_activations=_NUMBER, bias=_POINTER,
)  # fmt: skip
KVLayout = _struct(
    "KVLayout", base=_POINTER, table=_POINTER, width=_NUMBER, block=_NUMBER, block_stride=_NUMBER, head_stride=_NUMBER,
    position_stride=_NUMBER,
)  # fmt: skip
SparseMLP = _struct(
    "SparseMLP", router=Dense, gate_up=Dense, down=Dense, count=_NUMBER, top=_NUMBER, normalised=_NUMBER
)  # fmt: skip
DecoderLayer = _struct(
    "DecoderLayer", q=Dense, k=Dense, v=Dense, o=Dense, down=Dense, gate=Dense, up=Dense, sparse=SparseMLP,
    norm1=_POINTER, norm2=_POINTER, q_norm=_POINTER, k_norm=_POINTER, width=_NUMBER, heads=_NUMBER, kv_heads=_NUMBER,
    head_dim=_NUMBER, features=_NUMBER, window=_NUMBER, eps1=_FLOAT, eps2=_FLOAT, bfloat16=_NUMBER,
)  # fmt: skip
DecoderCall = _struct(
    "DecoderCall", x=_POINTER, out=_POINTER, cosines=_POINTER, sines=_POINTER, keys=KVLayout, values=KVLayout,
    totals=_POINTER, mask=_POINTER, mask_width=_NUMBER, rows=_NUMBER, length=_NUMBER, last_only=_NUMBER,
)  # fmt: skip
VisionLayer = _struct(
    "VisionLayer", qkv=Dense, proj=Dense, fc1=Dense, fc2=Dense, norm1=_POINTER, norm1_bias=_POINTER, norm2=_POINTER,
    norm2_bias=_POINTER, q_norm=_POINTER, k_norm=_POINTER, scale1=_POINTER, scale2=_POINTER, width=_NUMBER,
    heads=_NUMBER, features=_NUMBER, centred=_NUMBER, eps=_FLOAT, bfloat16=_NUMBER,
)  # fmt: skip
VisionCall = _struct("VisionCall", x=_POINTER, out=_POINTER, tiles=_NUMBER, length=_NUMBER)
Projector = _struct(
    "Projector", fc1=Dense, fc2=Dense, norm=_POINTER, norm_bias=_POINTER, width=_NUMBER, merge=_NUMBER,
    transposed=_NUMBER, eps=_FLOAT, bfloat16=_NUMBER,
)  # fmt: skip
ProjectorCall = _struct("ProjectorCall", x=_POINTER, out=_POINTER, tiles=_NUMBER, side=_NUMBER)
_STRUCTS = (DecoderLayer, DecoderCall, VisionLayer, VisionCall, Projector, ProjectorCall)


@dataclass(frozen=True)
class KVView:
    """KV cache of every layer during one forward pass, as the kernels address it.

    Attributes:
        keys: of each layer [B, M, K, E], or the blocks of a paged cache [blocks * K * block, E].
        values: as keys.
        totals: int64 [B], positions of each row with the new ones.
        kv_heads: K.
        table: int64 [B, blocks], block numbers of each row; None: keys and values are one run for each row.
        block: positions of a block.
    """

    keys: Sequence[paddle.Tensor]
    values: Sequence[paddle.Tensor]
    totals: paddle.Tensor
    kv_heads: int
    table: paddle.Tensor | None = None
    block: int = 0

    def layout(self):
        """Strides of one layer's keys or values; the base address is each layer's own."""
        shape = self.keys[0].shape
        e = shape[-1]
        if self.table is None:
            return KVLayout(None, None, 0, shape[1], shape[1] * self.kv_heads * e, e, self.kv_heads * e)
        cell = self.block * e
        table, width = self.table.data_ptr(), self.table.shape[1]
        return KVLayout(None, table, width, self.block, self.kv_heads * cell, cell, e)


def dense(
    weight, inputs: int, outputs: int, bits: int = 0, scales=None, offsets=None, group: int = -1, bias=None,
    count: int = 1, int8_activations: bool = False,
):  # fmt: skip
    """Struct of a linear layer, or of the first of several whose weights are stacked; see `csrc/linear_arguments.h`.

    Args:
        weight: float32 or bfloat16 [K, N], or integers of 8 or 4 bits, of the latter two rows a byte.
        inputs: K.
        outputs: N.
        bits: of integers; 0: floats.
        scales: float32, N for every `group` rows.
        offsets: as scales.
        group: rows that share a scale; -1: all.
        bias: float32 [N] or None.
        count: of stacked weights [count, K, N].
        int8_activations: products of many rows with integers are in int8, see `csrc/int8.h`.
    Raises:
        ValueError: a tensor of another size or dtype.
    """
    if bits == 0 and weight.dtype not in _FLOATS:
        raise ValueError(f"weights must be float32, bfloat16 or integers, not {weight.dtype}")
    if (bits != 0) != (scales is not None):
        raise ValueError("scales belong to integers, and only to those")
    group = group if group > 0 else inputs
    if bits == 4 and group % 2 and group < inputs:
        raise ValueError(f"a group of 4 bit weights must have an even number of rows, not {group}")
    _sized(weight, count * (-(-inputs // 2) if bits == 4 else inputs) * outputs, "weights")
    for numbers, name in ((scales, "scales"), (offsets, "offsets")):
        _sized(numbers, count * -(-inputs // group) * outputs, name)
    _sized(bias, outputs, "biases")
    kind = _INTEGERS[bits] if bits else _FLOATS[weight.dtype]
    return Dense(
        kind, address(weight), address(scales), address(offsets), inputs, outputs, group,
        int8_activations and bits > 0, address(bias),
    )  # fmt: skip


def address(tensor: paddle.Tensor | None) -> int | None:
    """Address of a tensor's memory; None for None."""
    return None if tensor is None else tensor.data_ptr()


def run_decoder_layers(layers, call, keys: Sequence[paddle.Tensor], values: Sequence[paddle.Tensor]) -> None:
    """Decoder layers one after the other, from a call's x into its out.

    Args:
        layers: a ctypes array of `DecoderLayer`.
        call: a `DecoderCall`.
        keys: KV cache of each layer.
        values: as keys.
    Raises:
        RuntimeError: the kernel failed.
    """
    count = len(layers)
    caches = [(_POINTER * count)(*[tensor.data_ptr() for tensor in each]) for each in (keys, values)]
    _raise_on_error(_functions().internvl_decoder_layers(layers, count, ctypes.byref(call), *caches))


def run_vision_layer(layer, call) -> None:
    """One layer of the vision tower, from a call's x into its out.

    Raises:
        RuntimeError: the kernel failed.
    """
    _raise_on_error(_functions().internvl_vision_layer(ctypes.byref(layer), ctypes.byref(call)))


def run_projector(projector, call) -> None:
    """Pixel shuffle and the projector, from a call's x into its out.

    Raises:
        RuntimeError: the kernel failed.
    """
    _raise_on_error(_functions().internvl_projector(ctypes.byref(projector), ctypes.byref(call)))


def _raise_on_error(error: bytes | None) -> None:
    if error:
        raise RuntimeError(f"the kernel failed: {error.decode()}")


def _sized(tensor: paddle.Tensor | None, count: int, name: str) -> None:
    if tensor is not None and tensor.size != count:
        raise ValueError(f"{name} have {tensor.size} numbers, {count} are needed")


@cache
def _functions() -> ctypes.CDLL:
    functions = library.functions()
    for function in (functions.internvl_decoder_layers, functions.internvl_vision_layer, functions.internvl_projector):
        function.restype = ctypes.c_char_p
    functions.internvl_decoder_layers.argtypes = (_POINTER, _NUMBER, _POINTER, _POINTER, _POINTER)
    functions.internvl_vision_layer.argtypes = functions.internvl_projector.argtypes = (_POINTER, _POINTER)
    functions.internvl_size_of.restype = _NUMBER
    for i, struct in enumerate(_STRUCTS):
        if ctypes.sizeof(struct) != functions.internvl_size_of(i):
            raise RuntimeError(f"{struct.__name__} is not laid out as in csrc/layer_arguments.h")
    return functions
