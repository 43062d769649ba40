"""Where weights meet parameters: every parameter by one tensor, every tensor used, shapes equal.

In: a network without memory and a checkpoint, float or quantised. Out: the network filled. It knows no folder layout
but through `convert`, and neither text nor pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod

import numpy as np
import paddle
from paddle import nn

from convert import CheckpointError
from convert.dtypes import FLOATS, cast
from convert.quant_config import Quantization, declared_quantization
from convert.quant_layout import awq_as_paddle, awq_weight, awq_with_offsets, packing_obstacle, unpack
from convert.quantize_rule import quantize_carried
from convert.safetensors_io import Checkpoint
from paddle_internvl import progress, runtime
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.kernels.library import mapped
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.ops import devices, dispatch
from paddle_internvl.ops.linear import Embedding, Linear
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.parallel.placement import Placement
from paddle_internvl.parallel.process_group import ProcessGroup
from paddle_internvl.parallel.sharded_layers import shard_layers
from paddle_internvl.parallel.shards import ShardPlan, ShardSpec

_KEPT = {"F32": "float32", "BF16": "bfloat16"}  # what the kernels take


def fill(
    network,
    checkpoint: Checkpoint,
    config: dict,
    dtype: str,
    placement: Placement,
    wanted: Quantization | None,
    group: ProcessGroup | None = None,
    keep: bool = True,
) -> str:
    """Fill a network that was built under LazyGuard.

    Args:
        network: decoder blocks' linear layers in it are replaced where their weights are held in few bits.
        checkpoint, config: the folder's tensors and config.json. dtype, placement: of the parameters.
        wanted: quantisation to be applied to float weights, or None.
        group: the ranks that share the decoder's layers, which are replaced by this rank's; None: they are whole.
        keep: on a CPU with kernels, float32 and bfloat16 weights of linear layers and of the embedding stay as the
            files have them, mapped where they lie there as they are needed.
    Returns:
        What the log shall say about quantised weights; '' without any.
    Raises:
        CheckpointError: parameters without a tensor, tensors without a parameter, shapes that differ; all counted.
    """
    have = declared_quantization(config)
    if wanted and have:
        raise CheckpointError(f"{checkpoint.folder} is quantised already ({have.method}); load it as it is")
    filler = _Filler(network, CheckpointView(checkpoint, config), dtype, placement, wanted or have)
    if group is not None:
        filler.shard_layers(group)
    for name, layer in list(network.named_sublayers()):
        if isinstance(layer, nn.Linear) and ".layers." in f".{name}" and "encoder." not in name:  # not the vision tower
            filler.add_linear(name, layer, quantise=wanted is not None)
    if wanted and not filler.handled:
        raise CheckpointError(f"{checkpoint.folder}: no weight can be quantised: {filler.summary()}")
    if keep and dtype == "float32" and dispatch.form_for("linear", False, dtype) == "native":
        filler.keep_as_stored()
    for name, parameter in network.named_parameters():
        filler.add_parameter(name, parameter)
    filler.run()
    checkpoint.release()
    for decoder in [
        layer for _, layer in network.named_sublayers(include_self=True) if isinstance(layer, DecoderForCausalLM)
    ]:
        few = [layer for layer in decoder.sublayers() if isinstance(layer, QuantizedLinear) and not layer.is_awq]
        decoder.config.weight_quantization = _fields(few[0]) if few else None
    return filler.summary()


def _fields(few: QuantizedLinear) -> dict:
    """What a config.json says of weights like this layer's."""
    return {"quant_method": f"weight_only_int{few.bits}", "group_size": few.group_size}


class _Filler:
    """Collects what every parameter needs, checks it against what there is, and then does it all."""

    def __init__(
        self, network, tensors: CheckpointView, dtype: str, placement: Placement, quantization: Quantization | None
    ):
        self.network, self.tensors, self.dtype, self.quantization = network, tensors, dtype, quantization
        self.placement = placement
        self.whole = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        self.split: ShardPlan | None = None
        self.expected: dict[str, tuple[int, ...]] = {}  # tensor -> shape
        self.jobs: list[tuple[int, Callable[[], None]]] = []  # numbers of a tensor, and what fills it
        self.handled: set[str] = set()  # parameters that a job for their layer fills
        self.kept: set[str] = set()  # parameters that stay as the files have them
        self.notes: Counter[str] = Counter()

    def shard_layers(self, group: ProcessGroup) -> None:
        """Let the network hold one rank's part."""
        self.split = ShardPlan.of(vars(self.network.config.llm_config), group.rank, group.size)
        with paddle.LazyGuard():
            shard_layers(self.network, self.split, group)

    def cut(self, name: str) -> ShardSpec | None:
        """What the network holds of a parameter; None: all."""
        return self.split and self.split.shard_of(name)

    def keep_as_stored(self) -> None:
        """Let what the kernels take stay as the files have it."""
        for name, layer in self.network.named_sublayers():
            weight = f"{name}.weight"
            if not isinstance(layer, (Linear, Embedding)) or weight not in self.tensors.outputs:
                continue
            if self.placement.device(weight) == "cpu" and self.tensors.dtype(weight) in _KEPT:
                self.kept.add(weight)
                layer.widened = self.tensors.dtype(weight) == "BF16"

    def add_linear(self, name: str, layer: nn.Linear, quantise: bool) -> None:
        """A decoder block's linear layer, in whichever form the checkpoint has its weight."""
        shape = self.whole[f"{name}.weight"]
        if f"{name}.qweight" in self.tensors.outputs:
            (k, n), g = shape, self.quantization.group_size
            shapes = {"qweight": (k, n // 8), "qzeros": (k // g, n // 8), "scales": (k // g, n)}
            job = partial(self._from_awq, name, layer)
        elif f"{name}.quant_weight" in self.tensors.outputs:
            (k, n), g = shape, self.quantization.group_size
            scale = (n,) if g == -1 else (k // g, n)
            shapes = {"quant_weight": (n * self.quantization.bits // 8, k), "quant_scale": scale}
            job = partial(self._from_packed, name, self._in_few_bits(name, layer))
        elif quantise:
            reason = packing_obstacle(*shape, self.quantization.bits, self.quantization.group_size)
            if reason:
                self.notes[f"left as floats: {reason}"] += 1
                return
            shapes = {"weight": shape}
            job = partial(self._rounded, name, self._in_few_bits(name, layer))
        else:
            return
        self.handled.add(f"{name}.weight")
        self.expected |= {f"{name}.{kind}": wanted for kind, wanted in shapes.items()}
        self.jobs.append((prod(shape), job))

    def add_parameter(self, name: str, parameter) -> None:
        """Any other parameter: the tensor of its own name."""
        if name not in self.handled:
            self.expected[name] = self.whole[name]
            self.jobs.append((prod(self.whole[name]), partial(self._set, name, parameter)))

    def run(self) -> None:
        """Check, then fill, on every core; the largest first, while little else is in memory beside their source."""
        self._require_same()
        jobs = [job for _, job in sorted(self.jobs, key=lambda sized: -sized[0])]
        with ThreadPoolExecutor(runtime.cpu_cores()) as pool, progress.bar("loading", len(jobs), "tensor") as bar:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
                bar.update()

    def summary(self) -> str:
        """How many weights are held how."""
        return ", ".join(f"{count} linear weights {note}" for note, count in sorted(self.notes.items()))

    def _in_few_bits(self, name: str, layer: nn.Linear) -> nn.Layer:
        """The layer that holds a weight of few bits: as such, or as floats if a kernel can't take the share of it."""
        reason = self.split and packing_obstacle(
            *layer.weight.shape, self.quantization.bits, self.quantization.group_size
        )
        if reason:
            self.notes[f"of few bits held as floats: {reason}"] += 1
        return layer if reason else self._replaced(name, layer)

    def _replaced(self, name: str, layer: nn.Linear) -> QuantizedLinear:
        """A layer of few bits in the place of `layer`, whose bias it keeps."""
        (k, n), q = layer.weight.shape, self.quantization
        few = QuantizedLinear(k, n, q.bits, q.group_size, bias=layer.bias is not None)
        if layer.bias is not None:
            few.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(dict(self.network.named_sublayers())[parent], child, few)
        return few

    def _set(self, name: str, parameter) -> None:
        dtype, cut = self.tensors.dtype(name) if name in self.kept else FLOATS[self.dtype], self.cut(name)
        info = self.tensors.in_file(name) if name in self.kept and cut is None else None
        if info is not None:
            mapped(info.file, info.offset, info.shape, _KEPT[dtype])._share_buffer_to(parameter)
            return
        self._share(self.tensors.array(name, dtype, cut), parameter, self.placement.device(name), dtype)

    def _share(self, memory: np.ndarray, parameter, device: str, dtype: str) -> None:
        """Make memory that carries `dtype` the parameter's own, on its device."""
        if dtype == "BF16":
            tensor = paddle.from_dlpack(memory.view(np.int16)).view("bfloat16")
        else:
            tensor = paddle.from_dlpack(memory.view({"F32": np.float32, "F16": np.float16}[dtype]))
        devices.to_device(tensor, device)._share_buffer_to(parameter)

    def _share_floats(self, weight: np.ndarray, name: str, layer: nn.Linear, cut: ShardSpec | None) -> None:
        """Make a cut of a float32 weight a layer's own."""
        weight = np.ascontiguousarray(weight[_slices(cut)])
        dtype = FLOATS[self.dtype]
        self._share(cast(weight.view(np.uint32), "F32", dtype), layer.weight, self.placement.device(name), dtype)

    def _hold(
        self, name: str, layer: nn.Layer, integers: np.ndarray, scales: np.ndarray, cut: ShardSpec | None
    ) -> None:
        """Give a layer a cut of a weight of few bits, on its device."""
        if isinstance(layer, nn.Linear):
            rows = len(integers) // len(np.atleast_2d(scales))
            self._share_floats(integers * np.repeat(np.atleast_2d(scales), rows, axis=0), name, layer, cut)
            return
        rows, columns = _slices(cut)
        if scales.ndim == 2 and cut is not None and cut.axis == 0:
            scales = scales[cut.start // layer.group_size : cut.stop // layer.group_size]
        device = self.placement.device(name)
        with devices.on(device):
            place = devices.place_of(device)
            layer.set_weight(
                np.ascontiguousarray(integers[rows, columns]),
                np.ascontiguousarray(scales[..., columns]),
                place,
                self.dtype,
            )

    def _rounded(self, name: str, layer: nn.Layer) -> None:
        cut = self.cut(f"{name}.weight")
        by_columns = cut is not None and cut.axis == 1  # each of which is rounded by itself
        weight = self.tensors.array(f"{name}.weight", cut=cut if by_columns else None)
        integers, scales = quantize_carried(weight, self.tensors.dtype(f"{name}.weight"), self.quantization)
        self._hold(name, layer, integers, scales, None if by_columns else cut)
        self.notes[f"rounded to {self.quantization.bits} bits"] += 1

    def _from_packed(self, name: str, layer: nn.Layer) -> None:
        packed = self.tensors.array(f"{name}.quant_weight").view(np.int8)
        integers, scales = unpack(packed, self.quantization.bits), self.tensors.floats(f"{name}.quant_scale")
        self._hold(name, layer, integers, scales, self.cut(f"{name}.weight"))
        self.notes[f"of {self.quantization.bits} bits"] += 1

    def _from_awq(self, name: str, layer: nn.Linear) -> None:
        qweight, qzeros = (self.tensors.array(f"{name}.{kind}") for kind in ("qweight", "qzeros"))
        scales = self.tensors.floats(f"{name}.scales")
        reason, cut = "there are no kernels for them", self.cut(f"{name}.weight")
        if self.placement.device(name) == "cpu":
            if self.split is None and dispatch.form_for("weight_only", False, self.dtype) == "native":
                integers, scales, offsets = awq_with_offsets(qweight, qzeros, scales)
                place = devices.place_of("cpu")
                self._replaced(name, layer).set_weight(integers, scales, place, self.dtype, offsets)
                self.notes["of AWQ in 4 bits"] += 1
                return
        else:
            packed, reason = awq_as_paddle(qweight, qzeros)
            if (
                packed is not None
                and self.split
                and packing_obstacle(*layer.weight.shape, 4, self.quantization.group_size)
            ):
                packed, reason = None, packing_obstacle(*layer.weight.shape, 4, self.quantization.group_size)
            if packed is not None and self.dtype == "float16":  # another dtype would round AWQ's float16 scales
                self._hold(name, self._replaced(name, layer), unpack(packed, 4), scales, cut)
                self.notes["of AWQ on Paddle's 4-bit kernel"] += 1
                return
        self._share_floats(awq_weight(qweight, qzeros, scales), name, layer, cut)
        self.notes[f"of AWQ dequantised ({reason or 'the scales are float16'})"] += 1

    def _require_same(self) -> None:
        """Every parameter has its tensors, every tensor its parameter, and their shapes agree."""
        shapes = {name: output.shape for name, output in self.tensors.outputs.items()}
        unfilled = sorted(self.expected.keys() - shapes.keys())
        unused = sorted(shapes.keys() - self.expected.keys())
        wrong = sorted(n for n in self.expected.keys() & shapes.keys() if self.expected[n] != shapes[n])
        problems = [f"{len(unfilled)} parameters have no tensor: {', '.join(unfilled[:3])}"] if unfilled else []
        problems += [f"{len(unused)} tensors have no parameter: {', '.join(unused[:3])}"] if unused else []
        problems += [f"{n} has shape {list(shapes[n])}, the model {list(self.expected[n])}" for n in wrong[:3]]
        if problems:
            folder = self.tensors.checkpoint.folder
            raise CheckpointError(f"{folder} does not fit its config.json: {'; '.join(problems)}")


def _slices(cut: ShardSpec | None) -> tuple[slice, slice]:
    """Rows and columns of a weight that a cut takes."""
    if cut is None:
        return slice(None), slice(None)
    own = slice(cut.start, cut.stop)
    return (own, slice(None)) if cut.axis == 0 else (slice(None), own)
