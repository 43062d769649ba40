"""The rule that quantises: float weights into Paddle's packed integers and scales. There is no way back.

In: a rule for float weights and a quantisation. Out: outputs `quant_weight` and `quant_scale`, the names that
PaddleNLP's quantised linear layers use. The arithmetic stands in `quant_layout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convert import CheckpointError
from convert.dtypes import carrier, cast
from convert.outputs import Output, Shape, StackedOutput
from convert.quant_config import Quantization
from convert.quant_layout import pack, packed_columns, pad_columns, quantize
from convert.rules import Rule


@dataclass(frozen=True)
class QuantizedOutput(Output):
    """The packed integers or the scales of a float output, as Paddle's `weight_quantize` makes them.

    Attributes:
        base: the float weight [in, out].
        quantization: bits and group size.
        part: 'quant_weight' or 'quant_scale'.
        source_dtype: of the float weight, and of the scales; an F32 weight is rounded to BF16 first.
    """

    base: Output | None = None
    quantization: Quantization | None = None
    part: str = "quant_weight"
    source_dtype: str = ""

    @property
    def whole(self) -> bool:
        return True

    def bind(self, source_dtype: str) -> Output:
        low = low_precision(source_dtype)
        return replace(self, source_dtype=source_dtype, dtype="I8" if self.part == "quant_weight" else low)

    def fill(self, read: Callable[[str], np.ndarray], out: np.ndarray, first: int, last: int) -> None:
        weight = np.empty(self.base.shape, carrier(self.source_dtype))
        self.base.fill(read, weight, 0, self.base.shape[0])
        padded = pad_columns(weight, self.quantization.bits)
        integers, scales = quantize_carried(padded, self.source_dtype, self.quantization)
        if self.part == "quant_weight":
            out[:] = pack(integers, self.quantization.bits).view(np.uint8)
        else:
            out[:] = cast(scales.view(np.uint32), "F32", low_precision(self.source_dtype))


def low_precision(dtype: str) -> str:
    """The dtype of the scales of a weight of `dtype`."""
    return "F16" if dtype == "F16" else "BF16"


def quantize_carried(weight: np.ndarray, dtype: str, quantization: Quantization) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a weight [K, N] that is carried in `dtype` (see `dtypes`): int8 [K, N] and float32 scales."""
    low = low_precision(dtype)

    def to_low(values: np.ndarray) -> np.ndarray:
        return cast(cast(values.view(np.uint32), "F32", low), low, "F32").view(np.float32)

    values = to_low(cast(np.ascontiguousarray(weight), dtype, "F32").view(np.float32))
    return quantize(values, quantization.bits, quantization.group_size, to_low)


@dataclass(frozen=True)
class Quantize(Rule):
    """Linear weights of `base` as packed integers and scales. There is no way back.

    Attributes:
        base: the rule of the float weights.
        quantization: bits and group size.
    """

    base: Rule | None = None
    quantization: Quantization | None = None

    def our_shapes(self) -> tuple[Shape, ...]:
        shapes: list[Shape] = []
        group_size = self.quantization.group_size
        for *experts, k, columns in self.base.our_shapes():
            n = packed_columns(columns, self.quantization.bits)
            shapes.append((*experts, n * self.quantization.bits // 8, k))
            shapes.append((*experts, n) if group_size == -1 else (*experts, k // group_size, n))
        return tuple(shapes)

    def forward(self) -> list[Output]:
        outputs: list[Output] = []
        floats = [output for output in self.base.forward() for _ in range(2)]
        for name, shape, base in zip(self.ours, self.our_shapes(), floats):
            outputs.append(self._quantized(name, shape, base))
        return outputs

    def _quantized(self, name: str, shape: Shape, base: Output) -> Output:
        if isinstance(base, StackedOutput):
            members = tuple(self._quantized(name, shape[1:], member) for member in base.members)
            return StackedOutput(name, shape, base.copies, members=members)
        part = name.rpartition(".")[2]
        return QuantizedOutput(name, shape, base.copies, base=base, quantization=self.quantization, part=part)

    def backward(self) -> list[Output]:
        raise CheckpointError(
            "a quantised folder can't be turned back into float weights; use the folder it was made from"
        )
