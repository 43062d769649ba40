"""A stand-in for CUDA graphs on a CPU: records the operations between `capture_begin` and `capture_end`, replays them.

As in a graph, numbers, shapes and the memory that is read are frozen, and Python code does not run again. A copy from
or to the host within a capture is an error. What is not recorded keeps its old values at a replay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from unittest import mock

import paddle

_OPERATORS = (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__matmul__",
    "__neg__", "__pow__", "__rpow__", "__getitem__", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__",
    "contiguous",
)  # fmt: skip
_HOST_OPERATIONS = ("numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "_copy_to", "copy_")


class HostCopyError(AssertionError):
    """A copy from or to the host while operations are captured."""


def _map_tensors(value, change: Callable):
    """A structure with every tensor in it changed."""
    if isinstance(value, paddle.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _map_tensors(item, change) for key, item in value.items()}
    return value


class RecordedGraph:
    """See the module; the methods are those of `paddle.device.cuda.graphs.CUDAGraph`."""

    def __init__(self):
        # Function, positional and named arguments, result; kept alive, so that ids are unique.
        self._trace: list[tuple] = []
        self._patches: list = []
        self._inside = False

    def capture_begin(self) -> None:
        """Start recording."""
        operations = paddle._C_ops
        names = [name for name in dir(operations) if not name.startswith("__")]
        patched = [(operations, name) for name in names if callable(getattr(operations, name))]
        for holder, name in [*patched, *((paddle.Tensor, name) for name in _OPERATORS)]:
            self._patch(holder, name, self._recorded(getattr(holder, name)))
        for holder, name in [(paddle, "to_tensor"), *((paddle.Tensor, name) for name in _HOST_OPERATIONS)]:
            self._patch(holder, name, self._refused(name, getattr(holder, name)))

    def _patch(self, holder, name: str, function) -> None:
        self._patches.append(mock.patch.object(holder, name, function))
        self._patches[-1].start()

    def capture_end(self) -> None:
        """Stop recording."""
        while self._patches:
            self._patches.pop().stop()

    def replay(self) -> None:
        """Run the recorded operations on the present values of their inputs; the result is written in place."""
        now: dict[int, paddle.Tensor] = {}
        for function, arguments, named, result in self._trace:
            arguments, named = (_map_tensors(values, lambda t: now.get(id(t), t)) for values in (arguments, named))
            new = function(*arguments, **named)
            olds, news = [], []
            _map_tensors(result, olds.append), _map_tensors(new, news.append)
            now.update((id(old), new) for old, new in zip(olds, news) if old is not new)
        last = self._trace[-1][-1]
        last.copy_(now[id(last)], True)

    def _recorded(self, function: Callable) -> Callable:
        @wraps(function)
        def run(*arguments, **named):
            outermost, self._inside = not self._inside, True
            try:
                result = function(*arguments, **named)
            finally:
                self._inside = not outermost
            if outermost:
                self._trace.append((function, arguments, named, result))
            return result

        return run

    def _refused(self, name: str, function: Callable) -> Callable:
        def run(*arguments, **named):
            if self._inside:  # within a recorded operation
                return function(*arguments, **named)
            raise HostCopyError(f"{name} within a capture")

        return run
