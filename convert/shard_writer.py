"""One safetensors file from many outputs: made in pieces by a few threads, each writing its own place in the file.

In: tensors to be made, and where their sources are. Out: a file that has its name only once it is whole and on disk.
Memory is a buffer of a few MiB a thread (64 rows, if they are longer), whatever the size of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from convert.dtypes import SIZES, carrier, cast
from convert.outputs import Output
from convert.piece_file import PieceFile
from convert.safetensors_io import Checkpoint, header_bytes

_PIECE = 8 << 20  # bytes of output that a thread makes at a time
_ROWS = 64  # the fewest rows of a transpose made at a time: narrower blocks are slow


@dataclass(frozen=True)
class Tensor:
    """A tensor to write: how it is made, the dtype of its sources, and the dtype it gets."""

    output: Output
    source_dtype: str
    dtype: str

    @property
    def nbytes(self) -> int:
        return prod(self.output.shape) * SIZES[self.dtype]


class ShardWriter:
    """Writes files one after the other; a file is brought to disk while the next one is made.

    Args:
        checkpoint: the source. metadata: of every file's header.
    """

    def __init__(self, checkpoint: Checkpoint, metadata: dict[str, str]):
        self._checkpoint, self._metadata = checkpoint, metadata
        # Twice the cores: while one thread waits for the disk another makes the next piece.
        self._makers = ThreadPoolExecutor(2 * min(4, os.cpu_count() or 1))
        self._syncer = ThreadPoolExecutor(1)
        self._settling: list[Future] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind, *_error) -> None:
        self._makers.shutdown(cancel_futures=True)
        self._syncer.shutdown()
        if kind is None:
            for settled in self._settling:
                settled.result()

    def write(self, file: Path, tensors: list[Tensor], progress: Callable[[int], None]) -> None:
        """Write `file` under a temporary name; it gets its own when it is on disk, at the latest on leaving the
        context. `progress` is told the bytes written of this file.

        Raises:
            OSError: as the system says, e.g. no space left.
        """
        header = header_bytes([(t.output.name, t.dtype, t.output.shape) for t in tensors], self._metadata)
        target = PieceFile(file.with_suffix(".tmp"), len(header) + sum(tensor.nbytes for tensor in tensors))
        try:
            start = target.buffer(0, len(header))
            start[:] = np.frombuffer(header, np.uint8)
            target.write(0, start)
            pieces: list[Future] = []
            offset = len(header)
            for tensor in tensors:
                pieces += self._submit(tensor, target, offset)
                offset += tensor.nbytes
            written = 0
            for piece in pieces:
                written += piece.result()
                progress(written)
        except BaseException:
            self._makers.shutdown(cancel_futures=True)  # nobody may write to a closed file
            target.close()
            raise
        self._checkpoint.release()
        self._settling.append(self._syncer.submit(_settle, target, file))

    def _submit(self, tensor: Tensor, target: PieceFile, offset: int) -> list[Future]:
        shape = tensor.output.shape
        if prod(shape) == 0:
            return []
        row_bytes = tensor.nbytes // shape[0]
        rows = shape[0] if tensor.output.whole else max(1, _PIECE // row_bytes)
        if tensor.output.transposed:
            rows = max(_ROWS, rows // _ROWS * _ROWS)
        pieces = []
        for first in range(0, shape[0], rows):
            last, place = min(first + rows, shape[0]), offset + first * row_bytes
            pieces.append(self._makers.submit(self._write_rows, tensor, target, place, first, last))
        return pieces

    def _write_rows(self, tensor: Tensor, target: PieceFile, offset: int, first: int, last: int) -> int:
        output = tensor.output
        shape, made = (last - first, *output.shape[1:]), carrier(tensor.source_dtype)
        filled = target.buffer(offset, prod(shape) * SIZES[tensor.dtype])
        if tensor.dtype == tensor.source_dtype:
            output.fill(self._checkpoint.array, filled.view(made).reshape(shape), first, last)
        else:
            rows = np.empty(shape, made)
            output.fill(self._checkpoint.array, rows, first, last)
            filled[:] = cast(rows, tensor.source_dtype, tensor.dtype).reshape(-1).view(np.uint8)
        target.write(offset, filled)
        return filled.size


def _settle(target: PieceFile, file: Path) -> None:
    """Bring a file to disk, then give it its name: what has the name is whole."""
    target.settle()
    os.replace(file.with_suffix(".tmp"), file)
