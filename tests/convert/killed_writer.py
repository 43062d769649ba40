"""A checkpoint writer that is killed before each of its system calls in turn, each time in a process of its own.

    python -m tests.convert.killed_writer FOLDER OLD NEW      shards of the old checkpoint (0: none) and of the new one

Prints how many times it was killed. Exits with an assertion where a reader would find neither the old nor the new
checkpoint. numpy only, so that forking is safe and quick.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from convert.checkpoint_writer import write_checkpoint
from convert.safetensors_io import Checkpoint
from convert.shard_writer import NewTensor

TENSORS, ROWS = 6, 4
CALLS = ("mkdir", "posix_fallocate", "pwrite", "fsync", "replace", "rename", "unlink", "rmdir")


def new_tensors(value: int, fill=None) -> list[NewTensor]:
    """Tensors whose every element is `value`."""

    def constant(out, first, last):
        out[:] = value

    return [NewTensor(f"weight.{i}", "F32", (ROWS, 8), fill or constant) for i in range(TENSORS)]


def write(folder: Path, value: int, shards: int, **options) -> tuple[int, int]:
    """Write a checkpoint of `shards` files whose weights and config are `value`."""
    size = TENSORS * ROWS * 8 * 4 // shards
    files = {"config.json": f'{{"value": {value}}}', "tokenizer.json": "{}"}
    metadata = {"format": "np"}
    return write_checkpoint(folder, new_tensors(value), metadata, files, replace=True, max_shard_size=size, **options)


def value_of(folder: Path) -> int:
    """The value that every weight of a checkpoint has."""
    checkpoint = Checkpoint(folder)
    assert len(checkpoint.tensors) == TENSORS
    (value,) = {int(x) for name in checkpoint.tensors for x in np.unique(checkpoint.array(name))}
    return value


def kill_before(number: int) -> None:
    """Kill this process before its `number`th call of `CALLS`."""
    left, lock = [number], threading.Lock()

    def wrapped(call):
        def killing(*args, **kwargs):
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return killing

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def survived(folder: Path, number: int, shards: int) -> bool:
    """Whether a process that writes value 2 was not killed before its `number`th call."""
    child = os.fork()
    if child == 0:
        kill_before(number)
        write(folder, 2, shards)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def main(root: Path, old: int, new: int) -> None:
    number, done = 0, False
    while not done:
        number += 1
        folder = root / "checkpoint"
        shutil.rmtree(root)
        root.mkdir()
        if old:
            write(folder, 1, old)
            (folder / "logs").mkdir()
            (folder / "README.md").write_text("mine")
        done = survived(folder, number, new)
        if old or folder.exists():
            assert value_of(folder) in ((2,) if done else (1, 2))
            assert (folder / "config.json").read_text() in ('{"value": 1}', '{"value": 2}')
        write(folder, 3, new)  # nothing that was left behind is in the way
        assert value_of(folder) == 3 and len(list(folder.glob("*.safetensors"))) == new
        assert not list(folder.glob(".*")) and not list(root.glob(".*.part"))
        assert (folder / "README.md").exists() == (folder / "logs").exists() == bool(old)
    print(number - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
