"""Tensors to be made: which features of which sources stand where in them. Bytes are moved, never computed.

In: arrays by name. Out: any rows of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

Shape = tuple[int, ...]
_BLOCK = 256  # elements; a transpose walks blocks of this side, so that both sides stay in cache


@dataclass(frozen=True)
class Copy:
    """`length` features of tensor `source` from its feature `start`, to the output's features from `target`."""

    source: str
    start: int
    length: int
    target: int


@dataclass(frozen=True)
class Output:
    """One tensor to be made.

    Attributes:
        copies: what its feature axis is made of. transposed: source and output swap their two axes.
        feature_axis: which axis of the output the copies run along.
        dtype: its own, where it is not that of its sources.
    """

    name: str
    shape: Shape
    copies: tuple[Copy, ...]
    transposed: bool = False
    feature_axis: int = 0
    dtype: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it can only be filled all at once."""
        return False

    def bind(self, source_dtype: str) -> Output:
        """The output once the dtype of its sources is known."""
        return self

    def sources(self, first: int, last: int) -> Iterator[str]:
        """Names of the sources that `fill` reads for rows first..last."""
        return (copy.source for copy in self.copies)

    def fill(self, read: Callable[[str], np.ndarray], out: np.ndarray, first: int, last: int) -> None:
        """Write rows first..last of the tensor into `out` [last - first, ...], reading sources by name."""
        for copy in self.copies:
            source = read(copy.source)
            stop = copy.target + copy.length
            end = copy.start + copy.length
            if self.feature_axis == 1:
                if self.transposed:  # output rows are columns of the source
                    _transpose(source[copy.start : end, first:last], out[:, copy.target : stop])
                else:
                    out[:, copy.target : stop] = source[first:last, copy.start : end]
                continue
            low, high = max(first, copy.target), min(last, stop)
            if low >= high:
                continue
            begin, end = low - copy.target + copy.start, high - copy.target + copy.start
            if self.transposed:
                _transpose(source[:, begin:end], out[low - first : high - first])
            else:
                out[low - first : high - first] = source[begin:end]


@dataclass(frozen=True)
class StackedOutput(Output):
    """A tensor whose rows are other outputs: the weights of all experts of a layer.

    Attributes:
        members: the output of each row.
    """

    members: tuple[Output, ...] = ()

    def bind(self, source_dtype: str) -> Output:
        """See `Output`."""
        members = tuple(member.bind(source_dtype) for member in self.members)
        return replace(self, members=members, dtype=members[0].dtype)

    def sources(self, first: int, last: int) -> Iterator[str]:
        """See `Output`."""
        return (copy.source for member in self.members[first:last] for copy in member.copies)

    def fill(self, read: Callable[[str], np.ndarray], out: np.ndarray, first: int, last: int) -> None:
        """See `Output`."""
        for row, member in zip(out, self.members[first:last]):
            member.fill(read, row, 0, len(row))


@dataclass(frozen=True)
class RowOutput(Output):
    """An output from one row of its source: the weight of one expert.

    Attributes:
        row: index on the source's first axis.
    """

    row: int = 0

    def fill(self, read: Callable[[str], np.ndarray], out: np.ndarray, first: int, last: int) -> None:
        """See `Output`."""
        super().fill(lambda name: read(name)[self.row], out, first, last)


def _transpose(source: np.ndarray, out: np.ndarray) -> None:
    """out[:] = source.T, block by block through a small array whose rows are a little longer than a block's: rows of
    a power of two bytes apart share their cache lines' places, which makes the plain form four times slower."""
    rows, columns = source.shape
    memory = np.empty((_BLOCK, _BLOCK + 16), source.dtype)
    for r in range(0, rows, _BLOCK):
        for c in range(0, columns, _BLOCK):
            block = source[r : r + _BLOCK, c : c + _BLOCK]
            here = memory[: block.shape[0], : block.shape[1]]
            here[:] = block
            out[c : c + _BLOCK, r : r + _BLOCK] = here.T
