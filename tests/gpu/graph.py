"""What is in a program: its operations, their dtypes, its casts and where they come from.

In: a layer, and the shapes and dtypes of its inputs. Out: a `Graph`. It knows no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
_STATISTICS = {"flash_attn_grad": 1, "flashmask_attention_grad": 1}  # float32 operands that their kernels want


@dataclass(frozen=True)
class Operation:
    """One operation of a program: its name without dialect and the dtypes of what it takes and gives, in the order of
    its operands ('' for what has none), and which function of ours asked for it, 'file function'."""

    name: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    site: str

    @property
    def forward(self) -> str:
        """Its name, or that of the operation that it is the gradient of; without the mark of what works in place."""
        return self.name.removesuffix("_grad").removesuffix("_")

    @property
    def floats(self) -> list[str]:
        """Dtypes of its float operands."""
        return [dtype for dtype in self.takes if dtype in FLOATS]


class Graph:
    """See the module.

    Attributes:
        operations: all, in order. outputs: dtypes of what the program gives.
    """

    def __init__(self, program, outputs=()):
        self.operations = list(_walk(program.global_block()))
        self.outputs = list(outputs)

    def faults(self, dtype: str) -> list[str]:
        """Heavy operations on anything but `dtype`, and operations on mixed dtypes."""
        found = []
        for op in self.operations:
            others = [kind for kind in op.floats if kind != dtype]
            if op.forward in HEAVY and len(others) > _STATISTICS.get(op.name, 0):
                found.append(f"{op.name} of {', '.join(op.takes)} in {op.site}")
            elif op.name.removesuffix("_") in UNIFORM and len(set(op.floats)) > 1:
                found.append(f"{op.name} of mixed {', '.join(op.takes)} in {op.site}")
        return found

    def casts(self) -> Counter[tuple[str, str, str]]:
        """(from, to, site) of every cast between floats -> how many."""
        kinds = ((*op.takes, *op.gives, op.site) for op in self.operations if op.name == "cast")
        return Counter(kind for kind in kinds if kind[0] in FLOATS and kind[1] in FLOATS)

    def count(self) -> Counter[str]:
        """How many there are of each operation."""
        return Counter(op.name for op in self.operations)

    def kernels(self) -> set[tuple[str, str]]:
        """Every operation with each dtype of its float operands, or results where it takes none."""
        return {
            (op.name.removesuffix("_"), kind)
            for op in self.operations
            for kind in (op.floats or [kind for kind in op.gives if kind in FLOATS])
        }


def _walk(block) -> Iterator[Operation]:
    for op in block.ops:
        takes = tuple(_dtype(value) for value in op.operands_source())
        gives = tuple(_dtype(value) for value in op.results())
        yield Operation(op.name().removeprefix("pd_op."), takes, gives, _site(op))
        for inner in op.blocks():
            yield from _walk(inner)


def _dtype(value) -> str:
    """Name of a value's dtype; '' of what has none: an absent operand, a list."""
    return str(value.dtype).removeprefix("paddle.") if value.initialized() and value.is_dense_tensor_type() else ""


def _site(op) -> str:
    """'file function' of our innermost frame, '?' without one."""
    frames = re.findall(r'File "([^"]+)", line \d+, in (\S+)', "\n".join(op.callstack or []))
    ours = [(file, function) for file, function in frames if file.startswith(f"{ROOT}/")]
    ours = [(Path(file).relative_to(ROOT).as_posix(), function) for file, function in ours]
    ours = [frame for frame in ours if not frame[0].startswith((".venv/", "tests/gpu/graph"))]
    return " ".join(ours[-1]) if ours else "?"


def build(layer: paddle.nn.Layer, *inputs, backward: bool = False) -> Graph:
    """The program of a layer. Its Python runs as it stands, untranslated, on symbols.

    Args:
        inputs: an `InputSpec` each. backward: with the gradients of what the layer gives.
    """
    captured = paddle.jit.to_static(layer, input_spec=list(inputs), full_graph=True).forward
    with mock.patch.object(paddle.jit.dy2static, "Call", lambda function: function):  # what it calls is not translated
        program, partial = captured.get_concrete_program(*inputs)
    outputs = [str(value.dtype).removeprefix("paddle.") for value in paddle.utils.flatten(program.outputs)]
    if not backward:
        return Graph(program.main_program, outputs)
    return Graph(partial._append_backward(partial.origin_runnable_program.clone()).program, outputs)
