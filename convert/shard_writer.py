"""Safetensors files of a new checkpoint: tensors are made in pieces by a few threads, each written at its place.

In: tensors to be made. Out: files that get their names only when they are whole and on disk. Memory is a buffer of a
few MiB a thread (more only for tensors that must be made at once), whatever the size of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from convert.dtypes import SIZES, carrier
from convert.piece_file import PieceFile
from convert.safetensors_io import header_bytes

_PIECE = 8 << 20  # bytes of a tensor that a thread makes at a time


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write.

    Attributes:
        name: in the file.
        dtype: of safetensors, e.g. 'BF16'.
        shape: of at least one axis.
        fill: called as fill(out, first, last) from any thread; writes rows first..last into `out`
            [last - first, ...] of `carrier(dtype)`.
        rows: fewest rows that are made at a time.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: Callable[[np.ndarray, int, int], None]
    rows: int = 1

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]

    @classmethod
    def at_once(cls, name: str, dtype: str, shape: Sequence[int], make: Callable[[], np.ndarray]) -> NewTensor:
        """A tensor whose rows are all made at a time, by `make()`."""

        def fill(out: np.ndarray, first: int, last: int) -> None:
            out[:] = make()

        return cls(name, dtype, tuple(shape), fill, rows=shape[0])


def header_of(tensors: Sequence[NewTensor], metadata: dict[str, str]) -> bytes:
    """The first bytes of the file that holds `tensors` in this order."""
    return header_bytes([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors], metadata)


class ShardWriter:
    """Writes files one after the other; a file is brought to disk while the next one is made.

    Args:
        metadata: of every file's header.
    """

    def __init__(self, metadata: dict[str, str]):
        self._metadata = metadata
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

    def write(self, file: Path, tensors: Sequence[NewTensor], on_progress: Callable[[int], None]) -> None:
        """Write a file under a temporary name; it is renamed when it is on disk, at the latest on leaving the context.

        Args:
            file: the path.
            tensors: in the order of the file.
            on_progress: called with the bytes of this file written so far.
        Raises:
            OSError: of the system, e.g. no space left.
        """
        header, temporary = header_of(tensors, self._metadata), file.with_suffix(".tmp")
        target = PieceFile(temporary, len(header) + sum(tensor.nbytes for tensor in tensors))
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
                on_progress(written)
        except BaseException:
            self._makers.shutdown(cancel_futures=True)  # before the file is closed
            target.close()
            temporary.unlink(missing_ok=True)
            raise
        self._settling.append(self._syncer.submit(_settle, target, temporary, file))

    def _submit(self, tensor: NewTensor, target: PieceFile, offset: int) -> list[Future]:
        if tensor.nbytes == 0:
            return []
        count = tensor.shape[0]
        row_bytes = tensor.nbytes // count
        rows = max(tensor.rows, _PIECE // row_bytes // tensor.rows * tensor.rows)
        pieces = []
        for first in range(0, count, rows):
            place, last = offset + first * row_bytes, min(first + rows, count)
            pieces.append(self._makers.submit(_write_rows, tensor, target, place, first, last))
        return pieces


def _write_rows(tensor: NewTensor, target: PieceFile, offset: int, first: int, last: int) -> int:
    shape = (last - first, *tensor.shape[1:])
    memory = target.buffer(offset, prod(shape) * SIZES[tensor.dtype])
    tensor.fill(memory.view(carrier(tensor.dtype)).reshape(shape), first, last)
    target.write(offset, memory)
    return memory.size


def _settle(target: PieceFile, temporary: Path, file: Path) -> None:
    """Bring a file to disk, then rename it: a file with the final name is whole."""
    target.settle()
    os.replace(temporary, file)
