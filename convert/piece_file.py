"""A file of known size that several threads write in pieces, each in its place, past the page cache where it can be.

In: bytes and where they belong. Out: the file, on disk. Bytes that come once and go to disk at once gain nothing from
the page cache, and making its pages costs more than the disk takes: direct writes are 2-3 times faster. They must
begin and end at multiples of a page, so what is left of a piece at its edges is kept and written at the end.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np

_PAGE = 4096


class PieceFile:
    """See the module.

    Args:
        path: the file, made anew. size: bytes.
    Raises:
        OSError: as the system says; no space left shows here, before any work.
    """

    def __init__(self, path: Path, size: int):
        self._plain = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        self._direct: int | None = None
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._plain, 0, size)
            if hasattr(os, "O_DIRECT"):
                self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without direct writes
                self.close()
                raise
        self._edges: list[tuple[int, bytes]] = []
        self._thread = threading.local()

    def buffer(self, offset: int, nbytes: int) -> np.ndarray:
        """Memory for the bytes at `offset`, uint8 [nbytes], to be filled and given to `write`. It is this thread's own
        and used again: fresh pages would cost more than filling them."""
        lead = offset % _PAGE
        memory = getattr(self._thread, "memory", None)
        if memory is None or memory.size < lead + nbytes:
            fresh = np.empty(lead + nbytes + 2 * _PAGE, np.uint8)
            start = -fresh.ctypes.data % _PAGE
            memory = self._thread.memory = fresh[start:]
        return memory[lead : lead + nbytes]

    def write(self, offset: int, filled: np.ndarray) -> None:
        """Write what `buffer(offset, ...)` returned, now filled."""
        first, last = -offset % _PAGE, filled.size
        last -= (offset + last) % _PAGE
        if self._direct is None:
            first, last = 0, filled.size
        if first >= last:
            self._edges.append((offset, filled.tobytes()))
            return
        _write(self._plain if self._direct is None else self._direct, filled[first:last], offset + first)
        for edge, at in ((filled[:first], offset), (filled[last:], offset + last)):
            if edge.size:
                self._edges.append((at, edge.tobytes()))

    def settle(self) -> None:
        """Write the edges, bring all to disk, and close."""
        try:
            for offset, edge in sorted(self._edges):
                _write(self._plain, edge, offset)
            os.fsync(self._plain)
        finally:
            self.close()

    def close(self) -> None:
        """Close without bringing anything to disk."""
        for descriptor in (self._plain, self._direct):
            if descriptor is not None:
                os.close(descriptor)


def _write(descriptor: int, data, offset: int) -> None:
    view = memoryview(data)
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], offset + written)
