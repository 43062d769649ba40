"""Filling a network by its loading plan: every parameter gets memory of its storage form, on its device.

In: a network without memory (built under LazyGuard), a plan, the checkpoint's tensors. Out: the network filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
from paddle import nn
from paddlenlp.utils.log import logger

from convert.dtypes import FLOATS, cast
from convert.quant_config import Quantization
from convert.quant_layout import awq_as_paddle, awq_weight, awq_with_offsets, unpack
from convert.quantize_rule import quantize_carried
from paddle_internvl import progress, runtime
from paddle_internvl.checkpoints.plan import Plan, PlanEntry, size_of
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.kernels.operators import mapped_file
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.ops import devices
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.ops.stacked_linear import QuantizedStackedLinear
from paddle_internvl.parallel.shards import ShardSpec

_NAMES = {code: name for name, code in FLOATS.items()}


def fill(network: nn.Layer, view: CheckpointView, plan: Plan, dtype: str, trainable: bool = False) -> None:
    """Fill a network. Linear layers whose weights are quantized are replaced by `QuantizedLinear`s, those of experts
    by `QuantizedStackedLinear`s.

    Args:
        network: built under LazyGuard, sharded if the plan is.
        view: the checkpoint's tensors.
        plan: of this network.
        dtype: compute dtype.
        trainable: whether gradients pass through quantized layers.
    Raises:
        CheckpointError: the plan does not fit the network.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    plan.require_fit(shapes, view.checkpoint.folder)
    filler = _Filler(network, view, plan, dtype, trainable)
    entries = sorted(plan.entries, key=lambda entry: -size_of(entry))  # the largest while little else is in memory
    with ThreadPoolExecutor(runtime.cpu_cores()) as pool, progress.bar("loading", len(entries), "tensor") as bar:
        for done in [pool.submit(filler.fill, entry) for entry in entries]:
            done.result()
            bar.update()
    view.checkpoint.release()
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, DecoderForCausalLM):
            layer.config.weight_quantization = _quantization_config(layer)


def _quantization_config(decoder: nn.Layer) -> dict | None:
    """quantization_config of a decoder with weight-only quantized layers, for config.json; None: it has none."""
    for layer in decoder.sublayers():
        if isinstance(layer, QuantizedLinear) and not layer.is_awq:
            head = isinstance(getattr(decoder, "lm_head", None), QuantizedLinear)
            return Quantization(f"weight_only_int{layer.bits}", layer.group_size, head).fields
    return None


class _Filler:
    """Fills parameters, from several threads at once."""

    def __init__(self, network: nn.Layer, view: CheckpointView, plan: Plan, dtype: str, trainable: bool):
        self._view, self._dtype, self._quantization, self._trainable = view, dtype, plan.quantization, trainable
        self._parameters = dict(network.named_parameters())
        layers = dict(network.named_sublayers())
        self._quantized_layers: dict[str, QuantizedLinear] = {}
        self._plain_layers: dict[str, tuple[nn.Layer, str, nn.Linear]] = {}
        for entry in plan.entries:
            if entry.storage == "quantized":
                parent, _, child = entry.layer.rpartition(".")
                plain = layers[entry.layer]
                self._plain_layers[entry.layer] = layers[parent], child, plain
                self._quantized_layers[entry.layer] = self._quantized_layer(entry, plain)
                setattr(layers[parent], child, self._quantized_layers[entry.layer])

    def _quantized_layer(self, entry: PlanEntry, plain: nn.Linear) -> QuantizedLinear:
        bits, group_size = self._quantization.bits, self._quantization.group_size
        if len(entry.shape) == 3:
            return QuantizedStackedLinear(*entry.shape, bits, group_size, self._trainable)
        layer = QuantizedLinear(*entry.shape, bits, group_size, plain.bias is not None, self._trainable)
        if plain.bias is not None:
            layer.bias = plain.bias
        return layer

    def fill(self, entry: PlanEntry) -> None:
        """Fill one parameter."""
        of_experts = len(entry.shape) == 3 and entry.storage == "quantized"
        (_EXPERT_FILLERS[entry.source] if of_experts else _FILLERS[entry.source, entry.storage])(self, entry)

    def float_copied(self, entry: PlanEntry) -> None:
        self._share(self._view.array(entry.parameter, entry.dtype, entry.shard), entry, entry.dtype)

    def float_mapped(self, entry: PlanEntry) -> None:
        info = self._view.in_file(entry.parameter)
        tensor = mapped_file(info.file, info.offset, info.shape, _NAMES[entry.dtype])
        tensor._share_buffer_to(self._parameters[entry.parameter])

    def rounded(self, entry: PlanEntry) -> None:
        by_columns = entry.shard is not None and entry.shard.axis == 1  # columns are rounded independently
        weight = self._view.array(entry.parameter, cut=entry.shard if by_columns else None)
        integers, scales = quantize_carried(weight, self._view.dtype(entry.parameter), self._quantization)
        self._hold(entry, integers, scales, None if by_columns else entry.shard)

    def packed(self, entry: PlanEntry) -> None:
        weight, scale = entry.tensors
        integers = unpack(self._view.array(weight).view(np.int8), self._quantization.bits)
        columns = entry.whole_shape[1]  # of a head the packed ones may be more
        self._hold(entry, integers[:, :columns], self._view.floats(scale)[..., :columns], entry.shard)

    def experts_rounded(self, entry: PlanEntry) -> None:
        dtype = self._view.dtype(entry.parameter)
        weights = (self._view.array(entry.parameter, cut=expert)[0] for expert in _experts(entry))
        self._hold_experts(entry, (quantize_carried(weight, dtype, self._quantization) for weight in weights))

    def experts_packed(self, entry: PlanEntry) -> None:
        weight, scale = entry.tensors
        packed = (self._view.array(weight, cut=expert)[0].view(np.int8) for expert in _experts(entry))
        scales = (self._view.array(scale, "F32", expert)[0].view(np.float32) for expert in _experts(entry))
        self._hold_experts(entry, ((unpack(each, self._quantization.bits), s) for each, s in zip(packed, scales)))

    def awq_quantized(self, entry: PlanEntry) -> None:
        qweight, qzeros, scales = self._awq_tensors(entry)
        if entry.device == "cpu":
            integers, scales, offsets = awq_with_offsets(qweight, qzeros, scales)
            self._quantized_layers[entry.layer].set_weight(
                integers, scales, devices.place_of("cpu"), self._dtype, offsets
            )
            return
        packed, obstacle = awq_as_paddle(qweight, qzeros)
        if packed is not None:
            self._hold(entry, unpack(packed, 4), scales, entry.shard)
            return
        logger.info(f"{entry.layer}: AWQ weights are dequantised: {obstacle}")
        parent, child, plain = self._plain_layers[entry.layer]
        setattr(parent, child, plain)
        self._share_floats(awq_weight(qweight, qzeros, scales), entry, entry.shard)

    def awq_dequantized(self, entry: PlanEntry) -> None:
        self._share_floats(awq_weight(*self._awq_tensors(entry)), entry, entry.shard)

    def _awq_tensors(self, entry: PlanEntry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        qweight, qzeros, scales = entry.tensors
        return self._view.array(qweight), self._view.array(qzeros), self._view.floats(scales)

    def _hold(self, entry: PlanEntry, integers: np.ndarray, scales: np.ndarray, shard: ShardSpec | None) -> None:
        """Store a shard of a quantized weight, quantized or as floats."""
        if entry.storage == "dequantized":
            rows = len(integers) // len(np.atleast_2d(scales))
            self._share_floats(integers * np.repeat(np.atleast_2d(scales), rows, axis=0), entry, shard)
            return
        layer = self._quantized_layers[entry.layer]
        rows, columns = _slices(shard)
        if scales.ndim == 2 and shard is not None and shard.axis == 0:
            scales = scales[shard.start // layer.group_size : shard.stop // layer.group_size]
        with devices.on(entry.device):
            layer.set_weight(
                np.ascontiguousarray(integers[rows, columns]),
                np.ascontiguousarray(scales[..., columns]),
                devices.place_of(entry.device),
                self._dtype,
            )

    def _hold_experts(self, entry: PlanEntry, weights: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Store integers and scales of each expert of a shard, with the floats of one expert at a time in memory."""
        with devices.on(entry.device):
            layer = self._quantized_layers[entry.layer]
            layer.set_weights(weights, devices.place_of(entry.device), self._dtype)

    def _share_floats(self, weight: np.ndarray, entry: PlanEntry, shard: ShardSpec | None) -> None:
        """Store a shard of a float32 weight in the compute dtype."""
        weight = np.ascontiguousarray(weight[_slices(shard)])
        dtype = FLOATS[self._dtype]
        self._share(cast(weight.view(np.uint32), "F32", dtype), entry, dtype)

    def _share(self, memory: np.ndarray, entry: PlanEntry, dtype: str) -> None:
        """Make carried bytes of a float dtype the parameter's memory, on its device."""
        if dtype == "BF16":
            tensor = paddle.from_dlpack(memory.view(np.int16)).view("bfloat16")
        else:
            tensor = paddle.from_dlpack(memory.view({"F32": np.float32, "F16": np.float16}[dtype]))
        devices.to_device(tensor, entry.device)._share_buffer_to(self._parameters[entry.parameter])


_FILLERS: dict[tuple[str, str], Callable[[_Filler, PlanEntry], None]] = {
    ("float", "cast"): _Filler.float_copied,
    ("float", "stored"): _Filler.float_copied,
    ("float", "mapped"): _Filler.float_mapped,
    ("float", "quantized"): _Filler.rounded,
    ("float", "dequantized"): _Filler.rounded,
    ("packed", "quantized"): _Filler.packed,
    ("packed", "dequantized"): _Filler.packed,
    ("awq", "quantized"): _Filler.awq_quantized,
    ("awq", "dequantized"): _Filler.awq_dequantized,
}

# of the stacked weights of experts; their shards are whole experts
_EXPERT_FILLERS = {"float": _Filler.experts_rounded, "packed": _Filler.experts_packed}


def _experts(entry: PlanEntry) -> Iterator[ShardSpec]:
    """Each expert of stacked weights, or of a shard of them, as a shard of its own."""
    whole = entry.whole_shape[0]
    held = range(whole) if entry.shard is None else range(entry.shard.start, entry.shard.stop)
    return (ShardSpec(0, n, n + 1, 1, whole) for n in held)


def _slices(shard: ShardSpec | None) -> tuple[slice, slice]:
    """Rows and columns of a weight that a shard takes."""
    if shard is None:
        return slice(None), slice(None)
    part = slice(shard.start, shard.stop)
    return (part, slice(None)) if shard.axis == 0 else (slice(None), part)
