"""The folder that a new checkpoint goes to: locked, written beside, switched at the end.

In: a path. Out: a part folder for the files, and one switch from the old checkpoint to the new one.
A folder that does not exist, or is empty, gets the part folder by one rename. In a folder with content only the
checkpoint's files are replaced: new shards first, under names that the old index does not use, then the index (or
`model.safetensors`), by which readers find the new weights, then config.json; old shards are deleted last.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from convert import CheckpointError
from convert.safetensors_io import INDEX_FILE, SINGLE_FILE, shard_names

PART = ".part"  # ends the names of part folders
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # on some network file systems


class Destination:
    """A folder while a checkpoint is written for it. Use as a context.

    Args:
        folder: path; symbolic links are followed.
        replace: whether an old checkpoint in it may be replaced.
    Attributes:
        part: folder for the new files, on the same file system.
    Raises:
        CheckpointError: the folder has content and `replace` is False, or another process writes to it.
    """

    def __init__(self, folder: Path, replace: bool):
        self.folder = Path(os.path.realpath(folder))
        if self.folder.is_file():
            raise CheckpointError(f"{self.folder} is a file; name a folder")
        has_content = self.folder.exists() and any(not name.startswith(PART) for name in os.listdir(self.folder))
        if has_content and not replace:
            raise CheckpointError(f"{self.folder} is not empty; remove it or choose another --dst")
        self._in_place = has_content or os.path.ismount(self.folder)
        self.part = self.folder / PART if self._in_place else self.folder.parent / f".{self.folder.name}{PART}"
        self._lock_file = self.part.with_name(f"{self.part.name}.lock")

    def __enter__(self) -> Destination:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._lock_file)
        if self._lock is None:
            raise CheckpointError(f"another process is writing {self.folder}; wait for it, or name another folder")
        self.part.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_error) -> None:
        self._lock_file.unlink(missing_ok=True)
        os.close(self._lock)

    def shard_names(self, count: int) -> list[str]:
        """Names for the new weight files; none is that of a shard in the folder."""
        generation = 1
        while count > 1 and any((self.folder / name).exists() for name in shard_names(count, generation)):
            generation += 1
        return shard_names(count, generation)

    def publish(self) -> None:
        """Switch to the checkpoint in the part folder.

        Raises:
            CheckpointError: another process put files into the folder meanwhile.
        """
        for path in (*self.part.iterdir(), self.part):
            sync(path)
        if self._in_place:
            self._switch()
            return
        try:
            os.rename(self.part, self.folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise CheckpointError(f"{self.folder} is not empty any more; run it again elsewhere") from None
            raise
        sync(self.folder.parent)

    def _switch(self) -> None:
        old = {self.folder / SINGLE_FILE, *self.folder.glob("model-*.safetensors")}
        new = sorted(os.listdir(self.part), key=_switch_order)
        for name in new:
            if name == INDEX_FILE:
                sync(self.folder)  # the shards are there before the index names them
            os.replace(self.part / name, self.folder / name)
            if name == SINGLE_FILE:
                (self.folder / INDEX_FILE).unlink(missing_ok=True)
        sync(self.folder)
        for file in old - {self.folder / name for name in new}:
            file.unlink(missing_ok=True)
        self.part.rmdir()

    def discard(self) -> None:
        """Delete the part folder."""
        shutil.rmtree(self.part, ignore_errors=True)


def _switch_order(name: str) -> tuple[int, str]:
    """Sorts files: shards and tokenizer files, then the one by which readers find the weights, then config.json."""
    return {SINGLE_FILE: 1, INDEX_FILE: 1, "config.json": 2}.get(name, 0), name


def _lock(file: Path) -> int | None:
    """Lock a file for this process alone: a descriptor that holds the lock until it is closed; None: it is taken.

    A file system without locks protects nothing, and saving works there all the same.
    """
    import fcntl  # not on Windows, where reading checkpoints works

    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise
    if file.exists() and os.path.samestat(os.stat(file), os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)  # the process that held the lock has just deleted the file
    return None


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
