"""Loading plan: for every parameter its source tensors, storage form, device and shard. A pure list, without Paddle.

In: a `CheckpointView` and `LoadOptions`. Out: `PlanEntry`s; `fill` executes them, `paddle-internvl info CKPT --plan`
prints them.

Storage forms:
    cast         floats in the compute dtype
    stored       floats in the file's dtype, in memory of their own (its layout differs from the file's)
    mapped       floats in the file's dtype, the memory-mapped file itself
    quantized    integers of 8 or 4 bits with scales
    dequantized  floats from quantized or rounded weights that no kernel here takes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from convert import CheckpointError
from convert.dtypes import FLOATS
from convert.mappings.quantized_tables import is_head, is_quantizable
from convert.quant_config import Quantization, declared_quantization
from convert.quant_layout import packing_obstacle
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.parallel.shards import ShardPlan, ShardSpec

_KERNEL_DTYPES = ("F32", "BF16")  # weights that the CPU kernels take
_COMPANIONS = ("qzeros", "scales", "quant_scale")  # tensors that belong to a qweight or quant_weight
FLOAT_FORMS = ("cast", "stored", "mapped")


@dataclass(frozen=True)
class LoadOptions:
    """Options that choose the storage form of every parameter.

    Attributes:
        dtype: compute dtype: 'float32', 'bfloat16' or 'float16'.
        device_of: name of a parameter -> 'cpu' or 'gpu:<index>'.
        trainable: float weights are plain parameters in `dtype`; False: the storage form that takes the least memory.
        cpu_kernels: whether the C++ kernels are available, which take bfloat16 and quantized weights.
        keep_dtype: whether weights of the kernels may keep the file's dtype; False: everything in `dtype`.
        quantization: of float weights of the decoder's linear layers while loading; None: none.
        shards: this rank's part of a tensor-parallel decoder; None: all of it.
        mapped: whether float weights stay in host memory, mapped from the file where it has them in `dtype`.
    """

    dtype: str
    device_of: Callable[[str], str]
    trainable: bool = False
    cpu_kernels: bool = False
    keep_dtype: bool = True
    quantization: Quantization | None = None
    shards: ShardPlan | None = None
    mapped: bool = False


@dataclass(frozen=True)
class PlanEntry:
    """Source tensors, storage form, device and shard of one parameter.

    Attributes:
        parameter: name in the network.
        whole_shape: of the checkpoint's tensor, in Paddle's layout.
        source: 'float', 'packed' (Paddle's weight-only layout) or 'awq'.
        tensors: names of the checkpoint's tensors that the parameter is made of.
        rule: conversion rule that takes the tensors; '-': the folder is in Paddle's layout.
        storage: storage form, see the module.
        dtype: in memory, as in safetensors files ('F32', 'BF16', 'F16', 'I8', 'I4').
        device: 'cpu' or 'gpu:<index>'.
        shard: part of the whole parameter; None: all of it.
        reason: obstacle to the requested storage form; '' if there is none.
    """

    parameter: str
    whole_shape: tuple[int, ...]
    source: str
    tensors: tuple[str, ...]
    rule: str
    storage: str
    dtype: str
    device: str
    shard: ShardSpec | None = None
    reason: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter in this process."""
        return self.whole_shape if self.shard is None else self.shard.shape_of(self.whole_shape)

    @property
    def layer(self) -> str:
        """Name of the layer that holds the parameter."""
        return self.parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Plan:
    """The plan of a whole network.

    Attributes:
        entries: one for each parameter.
        quantization: of the quantized weights; None: there are none.
    """

    entries: tuple[PlanEntry, ...]
    quantization: Quantization | None = None

    def require_fit(self, parameters: Mapping[str, tuple[int, ...]], folder) -> None:
        """Check that every parameter of a network has an entry of its shape, and every entry its parameter.

        Args:
            parameters: name -> shape of the network's parameters in this process.
            folder: of the checkpoint, for the message.
        Raises:
            CheckpointError: they differ; parameters and tensors are counted, the first ones named.
        """
        entries = {entry.parameter: entry for entry in self.entries}
        shapes = {name: entry.whole_shape for name, entry in entries.items()}
        parameters = {
            name: entries[name].shard.whole_shape_of(shape) if name in entries and entries[name].shard else shape
            for name, shape in parameters.items()
        }
        unfilled = sorted(parameters.keys() - shapes.keys())
        unused = sorted(shapes.keys() - parameters.keys())
        wrong = sorted(name for name in parameters.keys() & shapes.keys() if parameters[name] != shapes[name])
        problems = [f"{len(unfilled)} parameters have no tensor: {', '.join(unfilled[:3])}"] if unfilled else []
        problems += [f"{len(unused)} tensors have no parameter: {', '.join(unused[:3])}"] if unused else []
        problems += [f"{name} has shape {list(shapes[name])}, the model {list(parameters[name])}" for name in wrong[:3]]
        if problems:
            raise CheckpointError(f"{folder} does not fit its config.json: {'; '.join(problems)}")

    def summary(self) -> str:
        """Counts of the quantized weights by storage form, for the log; '' without any."""
        counts = Counter(
            f"{entry.source} weights {entry.storage}" + (f" ({entry.reason})" if entry.reason else "")
            for entry in self.entries
            if entry.storage not in FLOAT_FORMS or entry.reason
        )
        return ", ".join(f"{count} {words}" for words, count in sorted(counts.items()))


def plan_loading(view: CheckpointView, config: dict, options: LoadOptions) -> Plan:
    """The plan of loading a checkpoint.

    Args:
        view: the checkpoint's tensors under our names.
        config: its config.json.
        options: of the storage forms.
    Raises:
        CheckpointError: quantized tensors that don't belong together, or a quantization that can't be had.
    """
    have, requested = declared_quantization(config), options.quantization
    folder = view.checkpoint.folder
    if requested and have:
        raise CheckpointError(f"{folder} is quantised already ({have.method}); load it as it is")
    vocabulary = (config.get("llm_config") or config).get("vocab_size")
    planner = _Planner(view, options, have or requested, vocabulary)
    entries = tuple(
        planner.entry(name) for name in view.outputs if name.rpartition(".")[2] not in _COMPANIONS
    )  # fmt: skip
    if requested and not any(entry.storage in ("quantized", "dequantized") for entry in entries):
        first = next((entry for entry in entries if entry.reason), None)
        reason = f"{first.parameter}: {first.reason}" if first else "it has no decoder"
        raise CheckpointError(f"{folder}: no weight can be quantised: {reason}")
    head = next((entry for entry in entries if is_head(entry.parameter)), None)
    if requested and requested.head and (head is None or head.storage != "quantized"):
        raise CheckpointError(f"{folder}: the head can't be quantised: {head.reason if head else 'it has none'}")
    return Plan(entries, have or requested)


class _Planner:
    def __init__(
        self, view: CheckpointView, options: LoadOptions, quantization: Quantization | None, vocabulary: int | None
    ):
        self._view, self._options, self._quantization, self._vocabulary = view, options, quantization, vocabulary

    def entry(self, name: str) -> PlanEntry:
        """The entry of the parameter that a tensor belongs to."""
        layer, _, kind = name.rpartition(".")
        if kind == "qweight":
            return self._awq(layer)
        if kind == "quant_weight":
            return self._packed(layer)
        return self._float(name)

    def _float(self, name: str) -> PlanEntry:
        options, shape, file_dtype = self._options, self._view.outputs[name].shape, self._view.dtype(name)
        entry = self._made(name, shape, "float", (name,), "cast", FLOATS[options.dtype])
        is_matrix = len(shape) in (2, 3) and name.endswith(".weight")  # or the matrices of all experts of a layer
        if is_matrix and self._quantizes(name):
            obstacle = self._obstacle(name, shape, entry.device)
            if not obstacle:
                return self._quantized(entry)
            entry = replace(entry, reason=obstacle)
        if options.mapped:
            is_mapped = file_dtype == entry.dtype and self._view.in_file(name) is not None
            return replace(entry, storage="mapped" if is_mapped else "cast", device="cpu")
        kept = is_matrix and (entry.shard is None or ".layers." in name)
        if not (kept and self._keeps_dtype(entry.device) and file_dtype in _KERNEL_DTYPES):
            return entry
        mapped = entry.shard is None and self._view.in_file(name) is not None
        return replace(entry, storage="mapped" if mapped else "stored", dtype=file_dtype)

    def _quantizes(self, name: str) -> bool:
        """Whether a float weight is to be quantized: of a quantized folder a tied head alone."""
        if self._quantization is None:
            return False
        if self._options.quantization is None and not is_head(name):
            return False
        return is_quantizable(name, self._quantization.head)

    def _obstacle(self, name: str, shape: tuple[int, ...], device: str) -> str | None:
        """Why a weight can't be quantized; on a CPU a head may have any number of columns."""
        padded = is_head(name) and device == "cpu"
        return packing_obstacle(*shape[-2:], self._quantization.bits, self._quantization.group_size, padded)

    def _keeps_dtype(self, device: str) -> bool:
        options = self._options
        return options.cpu_kernels and options.keep_dtype and not options.trainable and device == "cpu"

    def _packed(self, layer: str) -> PlanEntry:
        bits, group = self._quantization.bits, self._quantization.group_size
        *experts, rows, inputs = self._view.outputs[f"{layer}.quant_weight"].shape
        outputs = rows * 8 // bits
        scales = (outputs,) if group == -1 else (inputs // group, outputs)
        self._require(layer, {"quant_scale": (*experts, *scales)})
        if is_head(f"{layer}.weight"):
            outputs = self._vocabulary  # the packed one may have more columns
        tensors = (f"{layer}.quant_weight", f"{layer}.quant_scale")
        return self._quantized(self._made(f"{layer}.weight", (*experts, inputs, outputs), "packed", tensors))

    def _awq(self, layer: str) -> PlanEntry:
        group = self._quantization.group_size
        inputs, columns = self._view.outputs[f"{layer}.qweight"].shape
        outputs = columns * 8
        self._require(layer, {"qzeros": (inputs // group, columns), "scales": (inputs // group, outputs)})
        tensors = tuple(f"{layer}.{kind}" for kind in ("qweight", "qzeros", "scales"))
        entry = self._made(f"{layer}.weight", (inputs, outputs), "awq", tensors, "quantized", "I4")
        if entry.device == "cpu":
            obstacle = "" if self._options.cpu_kernels else "there are no kernels for them"
            obstacle = obstacle or (entry.shard and "a shard is held as floats") or ""
        elif self._options.dtype != "float16":
            obstacle = "the scales are float16"  # another dtype would round them
        else:
            obstacle = (entry.shard and packing_obstacle(*entry.shape, 4, group)) or ""
        return self._as_floats(entry, obstacle) if obstacle else entry

    def _quantized(self, entry: PlanEntry) -> PlanEntry:
        """The entry quantized, or as floats of the quantized values if a kernel can't take its shard."""
        bits = self._quantization.bits
        obstacle = entry.shard and packing_obstacle(*entry.shape[-2:], bits, self._quantization.group_size)
        if is_head(entry.parameter):
            obstacle = (
                "a shard is held as floats"
                if entry.shard
                else self._obstacle(entry.parameter, entry.shape, entry.device)
            )
        if obstacle:
            return self._as_floats(entry, obstacle)
        return replace(entry, storage="quantized", dtype=f"I{bits}")

    def _as_floats(self, entry: PlanEntry, reason: str) -> PlanEntry:
        return replace(entry, storage="dequantized", dtype=FLOATS[self._options.dtype], reason=reason)

    def _made(self, parameter, shape, source, tensors, storage="quantized", dtype="I8") -> PlanEntry:
        shard = self._options.shards and self._options.shards.shard_of(parameter)
        device, rule = self._options.device_of(parameter), self._view.rule(tensors[0])
        return PlanEntry(parameter, tuple(shape), source, tensors, rule, storage, dtype, device, shard)

    def _require(self, layer: str, shapes: dict[str, tuple[int, ...]]) -> None:
        for kind, shape in shapes.items():
            output = self._view.outputs.get(f"{layer}.{kind}")
            if output is None or output.shape != shape:
                found = "is missing" if output is None else f"has shape {list(output.shape)}"
                raise CheckpointError(
                    f"{self._view.checkpoint.folder}: {layer}.{kind} {found}; {list(shape)} is needed"
                )  # fmt: skip


def size_of(entry: PlanEntry) -> int:
    """Number of elements of the parameter."""
    return prod(entry.shape)
