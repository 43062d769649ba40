"""Half precision on a CPU: eager operations on bfloat16 or float16 tensors, of which Paddle has no CPU kernels.

In: a context. Out: within it, an operation without a kernel of its operands' dtype runs in float32, and what it gives
is rounded to that dtype. So every operation rounds once, as CUDA's kernels do that accumulate in float32; their order
of summation is not imitated. What is not finite is counted, operation by operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from unittest import mock

import paddle

HALVES = (paddle.bfloat16, paddle.float16)
_OPERATORS = (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__matmul__",
    "__neg__", "__pow__", "__getitem__", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__",
)  # fmt: skip
_CASTS = ("cast", "cast_")  # have all kernels, and must not be rounded twice
_NO_KERNEL = ("kernel", "not registered", "data type")


class Seen:
    """What an emulated run has met.

    Attributes:
        largest: the largest finite magnitude of a half-precision value. overflows: operation -> how many results that
        are not finite.
    """

    def __init__(self):
        self.largest = 0.0
        self.overflows: Counter[str] = Counter()

    def look(self, name: str, value: paddle.Tensor) -> None:
        """Note a result."""
        wide = value.astype("float32").abs()
        finite = wide.isfinite()
        lost = int((~finite).astype("int64").sum())
        if lost:
            self.overflows[name.strip("_")] += lost
        if wide.size:
            self.largest = max(self.largest, float(paddle.where(finite, wide, paddle.zeros([])).max()))


def _each(value, change: Callable):
    """A structure with every tensor in it changed."""
    if isinstance(value, paddle.Tensor):
        return change(value) if value._is_initialized() else value  # results that were not asked for are empty
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    return value


def _widened(value: paddle.Tensor) -> paddle.Tensor:
    return value.astype("float32") if value.dtype in HALVES else value


def _emulated(name: str, function: Callable, seen: Seen) -> Callable:
    @wraps(function)
    def run(*given, **named):
        halves: list = []
        _each([*given, *named.values()], lambda t: halves.append(t.dtype) if t.dtype in HALVES else None)
        try:
            result = function(*given, **named)
        except Exception as error:
            if not halves or not any(sign in str(error) for sign in _NO_KERNEL):
                raise
            wide = function(
                *_each(list(given), _widened), **{key: _each(value, _widened) for key, value in named.items()}
            )
            result = _each(wide, lambda t: t.astype(halves[0]) if t.dtype == paddle.float32 else t)
            if name.endswith("_") and not name.startswith("__"):  # works in place, on its first operand
                result = given[0].copy_(result, True)
        if halves and not name.startswith("empty"):
            _each(result, lambda t: seen.look(name, t) if t.dtype in HALVES else None)
        return result

    return run


@contextmanager
def emulated() -> Iterator[Seen]:
    """Within this context half-precision operations work on a CPU."""
    seen, operations = Seen(), paddle._C_ops
    names = [name for name in dir(operations) if not name.startswith("__") and name not in _CASTS]
    patches = [(operations, name) for name in names if callable(getattr(operations, name))]
    patches += [(paddle.Tensor, name) for name in _OPERATORS]
    started = []
    try:
        for holder, name in patches:
            wrapped = _emulated(name, getattr(holder, name), seen)
            started.append(mock.patch.object(holder, name, wrapped))
            started[-1].start()
        yield seen
    finally:
        for patch in reversed(started):
            patch.stop()
