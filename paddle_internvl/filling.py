"""Where weights meet parameters: every parameter by one tensor, every tensor used, shapes equal.

In: a network without memory and a checkpoint, float or quantised. Out: the network filled. It knows no folder layout
but through `convert`, and neither text nor pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import paddle
from paddle import nn

from convert import CheckpointError
from convert.dtypes import FLOATS, carrier, cast, is_float
from convert.mappings import rules_for
from convert.outputs import Copy, Output
from convert.packing import awq_as_paddle, awq_weight, fits, unpack
from convert.quantization import Quantization, declared
from convert.quantize import quantized
from convert.rules import plan
from convert.safetensors_io import Checkpoint
from convert.streaming import is_paddle_layout
from paddle_internvl import runtime
from paddle_internvl.models import devices
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.models.quantized import QuantizedLinear
from paddle_internvl.parallel.placement import Placement

_PIECE = 1 << 22  # elements that are cast at a time


class _Tensors:
    """The checkpoint's tensors under our names, whichever layout its files have."""

    def __init__(self, checkpoint: Checkpoint, config: dict):
        if is_paddle_layout(checkpoint):
            outputs = [_whole(name, info.shape) for name, info in checkpoint.tensors.items()]
        else:
            table = rules_for(config, checkpoint.tensors)
            outputs = [output for _, output in plan(table, checkpoint.tensors, to_paddle=True)]
        self.outputs = {output.name: output for output in [*outputs, *_tied_head(outputs)]}
        self.checkpoint = checkpoint

    def dtype(self, name: str) -> str:
        return self.checkpoint.tensors[self.outputs[name].copies[0].source].dtype

    def array(self, name: str, dtype: str | None = None) -> np.ndarray:
        """A tensor's carried bytes in memory of its own; cast piece by piece if a dtype is given."""
        output, source = self.outputs[name], self.dtype(name)
        dtype = dtype or source
        if dtype != source and not is_float(source):
            raise CheckpointError(f"{name} is {source} in {self.checkpoint.folder}; only float weights can be loaded")
        memory = np.empty(output.shape, carrier(dtype))
        rows = max(1, _PIECE * output.shape[0] // max(memory.size, 1))
        for first in range(0, output.shape[0], rows):
            last = min(first + rows, output.shape[0])
            if source == dtype:
                output.fill(self.checkpoint.array, memory[first:last], first, last)
                continue
            piece = np.empty((last - first, *output.shape[1:]), carrier(source))
            output.fill(self.checkpoint.array, piece, first, last)
            memory[first:last] = cast(piece, source, dtype)
        return memory

    def floats(self, name: str) -> np.ndarray:
        """A float tensor as float32."""
        return self.array(name, "F32").view(np.float32)


def _whole(name: str, shape: tuple[int, ...]) -> Output:
    return Output(name, shape, (Copy(name, 0, shape[0], 0),))


def _tied_head(outputs: list[Output]) -> list[Output]:
    """The head from the embedding, where a checkpoint has no head of its own."""
    made = {output.name: output for output in outputs}
    tied = []
    for name, embedding in made.items():
        prefix, found, _ = name.partition("model.embed_tokens.weight")
        if found and prefix + "lm_head.weight" not in made:
            head, shape = prefix + "lm_head.weight", embedding.shape[::-1]
            tied.append(replace(embedding, name=head, shape=shape, transposed=True, feature_axis=1))
    return tied


def fill(
    network, checkpoint: Checkpoint, config: dict, dtype: str, placement: Placement, wanted: Quantization | None
) -> str:
    """Fill a network that was built under LazyGuard.

    Args:
        network: decoder blocks' linear layers in it are replaced where their weights are held in few bits.
        checkpoint, config: the folder's tensors and config.json. dtype, placement: of the parameters.
        wanted: quantisation to be applied to float weights, or None.
    Returns:
        What the log shall say about quantised weights; '' without any.
    Raises:
        CheckpointError: parameters without a tensor, tensors without a parameter, shapes that differ; all counted.
    """
    have = declared(config)
    if wanted and have:
        raise CheckpointError(f"{checkpoint.folder} is quantised already ({have.method}); load it as it is")
    filler = _Filler(network, _Tensors(checkpoint, config), dtype, placement, wanted or have)
    for name, layer in list(network.named_sublayers()):
        if isinstance(layer, nn.Linear) and ".layers." in f".{name}" and "encoder." not in name:  # not the vision tower
            filler.add_linear(name, layer, quantise=wanted is not None)
    for name, parameter in network.named_parameters():
        filler.add_parameter(name, parameter)
    filler.run()
    checkpoint.release()
    for decoder in [
        layer for _, layer in network.named_sublayers(include_self=True) if isinstance(layer, DecoderForCausalLM)
    ]:
        few = [layer for layer in decoder.sublayers() if isinstance(layer, QuantizedLinear)]
        decoder.config.weight_quantization = _fields(few[0]) if few else None
    return filler.summary()


def _fields(few: QuantizedLinear) -> dict:
    """What a config.json says of weights like this layer's."""
    return {"quant_method": f"weight_only_int{few.bits}", "group_size": few.group_size}


class _Filler:
    """Collects what every parameter needs, checks it against what there is, and then does it all."""

    def __init__(self, network, tensors: _Tensors, dtype: str, placement: Placement, quantization: Quantization | None):
        self.network, self.tensors, self.dtype, self.quantization = network, tensors, dtype, quantization
        self.placement = placement
        self.expected: dict[str, tuple[int, ...]] = {}  # tensor -> shape
        self.jobs: list[Callable[[], None]] = []
        self.handled: set[str] = set()  # parameters that a job for their layer fills
        self.notes: Counter[str] = Counter()

    def add_linear(self, name: str, layer: nn.Linear, quantise: bool) -> None:
        """A decoder block's linear layer, in whichever form the checkpoint has its weight."""
        shape = tuple(layer.weight.shape)
        if f"{name}.qweight" in self.tensors.outputs:
            (k, n), g = shape, self.quantization.group_size
            shapes = {"qweight": (k, n // 8), "qzeros": (k // g, n // 8), "scales": (k // g, n)}
            job = partial(self._from_awq, name, layer)
        elif f"{name}.quant_weight" in self.tensors.outputs:
            (k, n), g = shape, self.quantization.group_size
            scale = (n,) if g == -1 else (k // g, n)
            shapes = {"quant_weight": (n * self.quantization.bits // 8, k), "quant_scale": scale}
            job = partial(self._from_packed, name, self._replaced(name, layer))
        elif quantise:
            reason = fits(*shape, self.quantization.bits, self.quantization.group_size)
            if reason:
                self.notes[f"left as floats: {reason}"] += 1
                return
            shapes = {"weight": shape}
            job = partial(self._rounded, name, self._replaced(name, layer))
        else:
            return
        self.handled.add(f"{name}.weight")
        self.expected |= {f"{name}.{kind}": wanted for kind, wanted in shapes.items()}
        self.jobs.append(job)

    def add_parameter(self, name: str, parameter) -> None:
        """Any other parameter: the tensor of its own name."""
        if name not in self.handled:
            self.expected[name] = tuple(parameter.shape)
            self.jobs.append(partial(self._set, name, parameter))

    def run(self) -> None:
        """Check, then fill, on every core."""
        self._require_same()
        with ThreadPoolExecutor(runtime.cpu_cores()) as pool:
            for done in [pool.submit(job) for job in self.jobs]:
                done.result()

    def summary(self) -> str:
        """How many weights are held how."""
        return ", ".join(f"{count} linear weights {note}" for note, count in sorted(self.notes.items()))

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
        self._share(self.tensors.array(name, FLOATS[self.dtype]), parameter, self.placement.device(name))

    def _share(self, memory: np.ndarray, parameter, device: str) -> None:
        """Make carried memory the parameter's own, on its device."""
        if self.dtype == "bfloat16":
            tensor = paddle.from_dlpack(memory.view(np.int16)).view("bfloat16")
        else:
            tensor = paddle.from_dlpack(memory.view({"float32": np.float32, "float16": np.float16}[self.dtype]))
        devices.moved(tensor, device)._share_buffer_to(parameter)

    def _rounded(self, name: str, few: QuantizedLinear) -> None:
        weight = self.tensors.array(f"{name}.weight")
        integers, scales = quantized(weight, self.tensors.dtype(f"{name}.weight"), self.quantization)
        self._hold(name, few, integers, scales)
        self.notes[f"rounded to {few.bits} bits"] += 1

    def _hold(self, name: str, few: QuantizedLinear, integers: np.ndarray, scales: np.ndarray) -> None:
        """Give a layer its weight, on its device."""
        device = self.placement.device(name)
        with devices.on(device):
            few.set_weight(integers, scales, devices.place_of(device), self.dtype)

    def _from_packed(self, name: str, few: QuantizedLinear) -> None:
        packed = self.tensors.array(f"{name}.quant_weight").view(np.int8)
        self._hold(name, few, unpack(packed, few.bits), self.tensors.floats(f"{name}.quant_scale"))
        self.notes[f"of {few.bits} bits"] += 1

    def _from_awq(self, name: str, layer: nn.Linear) -> None:
        qweight, qzeros = (self.tensors.array(f"{name}.{kind}") for kind in ("qweight", "qzeros"))
        scales = self.tensors.floats(f"{name}.scales")
        reason, device = "a CPU has no kernel for them", self.placement.device(name)
        if device != "cpu":
            packed, reason = awq_as_paddle(qweight, qzeros)
            if packed is not None and self.dtype == "float16":  # another dtype would round AWQ's float16 scales
                self._hold(name, self._replaced(name, layer), unpack(packed, 4), scales)
                self.notes["of AWQ on Paddle's 4-bit kernel"] += 1
                return
        weight = awq_weight(qweight, qzeros, scales)
        self._share(cast(weight.view(np.uint32), "F32", FLOATS[self.dtype]), layer.weight, device)
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
