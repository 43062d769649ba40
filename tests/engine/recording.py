"""A CUDA graph's stand-in on a CPU: records the operations between `capture_begin` and `capture_end`, plays them again.

What a graph freezes is frozen here: numbers, shapes, and which memory is read; Python does not run again. What can't
happen within a capture, a copy from or to the host, is an error. What it does not record stays as it was, so that
whoever plays it sees old numbers.
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
_OF_THE_HOST = ("numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "_copy_to", "copy_")


class HostCopyError(AssertionError):
    """A copy from or to the host while operations are captured."""


def _each(value, change: Callable):
    """A structure with every tensor in it changed."""
    if isinstance(value, paddle.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return value


class RecordedGraph:
    """See the module; the methods are those of `paddle.device.cuda.graphs.CUDAGraph`."""

    def __init__(self):
        self._trace: list[
            tuple
        ] = []  # function, positional and named arguments, result: all kept, so that ids are unique
        self._patches: list = []
        self._inside = False

    def capture_begin(self) -> None:
        """Record what runs from now on."""
        operations = paddle._C_ops
        names = [name for name in dir(operations) if not name.startswith("__")]
        patched = [(operations, name) for name in names if callable(getattr(operations, name))]
        for holder, name in [*patched, *((paddle.Tensor, name) for name in _OPERATORS)]:
            self._patch(holder, name, self._recorded(getattr(holder, name)))
        for holder, name in [(paddle, "to_tensor"), *((paddle.Tensor, name) for name in _OF_THE_HOST)]:
            self._patch(holder, name, self._refused(name, getattr(holder, name)))

    def _patch(self, holder, name: str, function) -> None:
        self._patches.append(mock.patch.object(holder, name, function))
        self._patches[-1].start()

    def capture_end(self) -> None:
        """Record no more."""
        while self._patches:
            self._patches.pop().stop()

    def replay(self) -> None:
        """Run what was recorded on what lies in its inputs now; its results are written where they were."""
        now: dict[int, paddle.Tensor] = {}
        for function, given, named, result in self._trace:
            new = function(*_each(given, lambda t: now.get(id(t), t)), **_each(named, lambda t: now.get(id(t), t)))
            olds, news = [], []
            _each(result, olds.append), _each(new, news.append)
            now.update((id(old), new) for old, new in zip(olds, news) if old is not new)
        last = self._trace[-1][-1]
        last.copy_(now[id(last)], True)

    def _recorded(self, function: Callable) -> Callable:
        @wraps(function)
        def run(*given, **named):
            outermost, self._inside = not self._inside, True
            try:
                result = function(*given, **named)
            finally:
                self._inside = not outermost
            if outermost:
                self._trace.append((function, given, named, result))
            return result

        return run

    def _refused(self, name: str, function: Callable) -> Callable:
        def run(*given, **named):
            if self._inside:  # an operation's own business
                return function(*given, **named)
            raise HostCopyError(f"{name} within a capture")

        return run
