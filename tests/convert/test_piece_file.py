"""Files written in pieces, with direct writes and without: the same bytes, and errors before any work."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.piece_file import PieceFile


@pytest.fixture(params=["direct", "plain"])
def kind(request, monkeypatch):
    """Whether the system has direct writes; a file system that refuses them does so with EINVAL."""
    if request.param == "plain":
        opened = os.open

        def refuse(path, flags, *mode):
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return opened(path, flags, *mode)

        monkeypatch.setattr(os, "open", refuse)
    return request.param


def write(path, content: bytes, cuts: list[int]) -> None:
    """`content` in pieces between `cuts`, by three threads in any order."""
    target = PieceFile(path, len(content))
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})

    def piece(first, last):
        made = target.buffer(first, last - first)
        made[:] = np.frombuffer(content[first:last], np.uint8)
        target.write(first, made)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(piece, *span) for span in zip(edges, edges[1:])]:
            done.result()
    target.settle()


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 40_000), cuts=st.lists(st.integers(0, 40_000), max_size=8), seed=st.integers(0, 99))
def test_pieces_are_the_file(tmp_path_factory, size, cuts, seed):
    path = tmp_path_factory.mktemp("pieces") / "file"
    content = np.random.default_rng(seed).bytes(size)
    write(path, content, cuts)
    assert path.read_bytes() == content


def test_with_and_without_direct_writes(tmp_path, kind):
    content = np.random.default_rng(0).bytes(3 << 20)
    write(tmp_path / "file", content, [5, 4096, 8192, 100_001, 1 << 20, (2 << 20) + 7])
    assert (tmp_path / "file").read_bytes() == content


def test_a_full_disk_shows_before_any_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        PieceFile(tmp_path / "file", 100)
    assert set(os.listdir("/proc/self/fd")) == before
