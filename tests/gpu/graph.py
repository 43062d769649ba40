"""Operations of a Paddle program: their dtypes, casts, and the functions of ours that call them.

In: a layer, and the shapes and dtypes of its inputs. Out: a `Graph`. Independent of any model.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import paddle

ROOT = Path(__file__).parents[2]
FLOATS = {"float16", "bfloat16", "float32", "float64"}
# Operations whose float operands must all be of the model's dtype: where the arithmetic is.
HEAVY = {"matmul", "linear_v2", "conv2d", "flash_attn", "flashmask_attention", "weight_only_linear", "einsum", "bmm"}
# Operations whose float operands must be of one dtype. (Gradients also take statistics, which are float32.)
UNIFORM = {
    "add", "subtract", "multiply", "divide", "concat", "where", "scatter", "layer_norm", "rms_norm", "swiglu", "stack",
    "fused_rms_norm_quant", "fused_rotary_position_embedding", "maximum", "minimum", "set_value_with_tensor",
}  # fmt: skip
_FRAME = re.compile(rf'File "{re.escape(str(ROOT))}/([^"]+)", line \d+, in (\S+)')
_FRAMES = (
    16  # innermost ones that an operation keeps of its call stack; with all of them a trace takes 1.5 times as long
)
_STATISTICS = {"flash_attn_grad": 1, "flashmask_attention_grad": 1}  # float32 operands that their kernels require


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Attributes:
        name: without its dialect.
        inputs: dtype of each operand; '' for an operand without one.
        outputs: dtype of each result.
        site: the function of ours that calls it, as 'file function'.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    site: str

    @property
    def forward(self) -> str:
        """Its name without the suffixes of gradients and of in-place operations."""
        return self.name.removesuffix("_grad").removesuffix("_")

    @property
    def floats(self) -> list[str]:
        """Dtypes of its float operands."""
        return [dtype for dtype in self.inputs if dtype in FLOATS]


class Graph:
    """All operations of a program.

    Attributes:
        operations: in order.
        outputs: dtypes of the program's results.
    """

    def __init__(self, program, outputs=()):
        self.operations = list(_walk(program.global_block()))
        self.outputs = list(outputs)

    def faults(self, dtype: str) -> list[str]:
        """Heavy operations on another dtype than `dtype`, and operations on mixed dtypes."""
        found = []
        for op in self.operations:
            others = [kind for kind in op.floats if kind != dtype]
            if op.forward in HEAVY and len(others) > _STATISTICS.get(op.name, 0):
                found.append(f"{op.name} of {', '.join(op.inputs)} in {op.site}")
            elif op.name.removesuffix("_") in UNIFORM and len(set(op.floats)) > 1:
                found.append(f"{op.name} of mixed {', '.join(op.inputs)} in {op.site}")
        return found

    def casts(self) -> Counter[tuple[str, str, str]]:
        """(from, to, site) of every cast between floats -> their number."""
        kinds = ((*op.inputs, *op.outputs, op.site) for op in self.operations if op.name == "cast")
        return Counter(kind for kind in kinds if kind[0] in FLOATS and kind[1] in FLOATS)

    def count(self) -> Counter[str]:
        """Name of an operation -> its number."""
        return Counter(op.name for op in self.operations)

    def kernels(self) -> set[tuple[str, str]]:
        """Every operation with each dtype of its float operands, or of its results if it has none."""
        return {
            (op.name.removesuffix("_"), kind)
            for op in self.operations
            for kind in (op.floats or [kind for kind in op.outputs if kind in FLOATS])
        }


def _walk(block) -> Iterator[Operation]:
    for op in block.ops:
        inputs = tuple(_dtype(value) for value in op.operands_source())
        outputs = tuple(_dtype(value) for value in op.results())
        yield Operation(op.name().removeprefix("pd_op."), inputs, outputs, _site(op))
        for inner in op.blocks():
            yield from _walk(inner)


def _dtype(value) -> str:
    """Name of a value's dtype; '' for an absent operand or a list."""
    return str(value.dtype).removeprefix("paddle.") if value.initialized() and value.is_dense_tensor_type() else ""


def _site(op) -> str:
    """'file function' of our innermost frame, '?' without one."""
    for line in reversed(op.callstack or []):
        frame = _FRAME.search(line)
        if frame and not frame[1].startswith((".venv/", "tests/gpu/graph")):
            return f"{frame[1]} {frame[2]}"
    return "?"


def build(layer: paddle.nn.Layer, *inputs, backward: bool = False) -> Graph:
    """The program of a layer, traced with symbolic tensors; its Python is not translated.

    Args:
        layer: to trace.
        inputs: an `InputSpec` each.
        backward: append the gradients of the outputs.
    """
    captured = paddle.jit.to_static(layer, input_spec=list(inputs), full_graph=True).forward
    with (
        mock.patch.object(paddle.jit.dy2static, "Call", lambda function: function),  # called functions run as they are
        mock.patch.object(traceback, "extract_stack", partial(traceback.extract_stack, limit=_FRAMES)),
        mock.patch.object(linecache, "checkcache", lambda file=None: None),
    ):
        program, partial_program = captured.get_concrete_program(*inputs)
        outputs = [str(value.dtype).removeprefix("paddle.") for value in paddle.utils.flatten(program.outputs)]
        if backward:
            return Graph(
                partial_program._append_backward(partial_program.origin_runnable_program.clone()).program, outputs
            )
        return Graph(program.main_program, outputs)
