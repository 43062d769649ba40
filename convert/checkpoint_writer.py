"""The one writer of checkpoint folders: shards, their index and other files, written beside and switched at the end.

In: tensors to be made, and files to go along. Out: a whole checkpoint folder; until then the old one stays as it is. A
full disk or a killed process costs nothing but the new files. `python -m convert` and `save_pretrained` write with it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convert import CheckpointError
from convert.destination import Destination
from convert.safetensors_io import INDEX_FILE, MAX_SHARD_SIZE, in_shards, index_text
from convert.shard_writer import NewTensor, ShardWriter, header_of

_PLAN_FILE = "plan.json"


def write_checkpoint(
    folder: Path,
    tensors: Sequence[NewTensor],
    metadata: dict[str, str],
    files: Mapping[str, Path | str],
    *,
    replace: bool,
    max_shard_size: int = MAX_SHARD_SIZE,
    resume_key: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    after_shard: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Write a checkpoint folder.

    Args:
        folder: made if it does not exist.
        tensors: in the order of the files.
        metadata: of every weight file's header.
        files: other files by name, as paths to copy from or as text.
        replace: whether a checkpoint in the folder may be replaced; else the folder must be empty or missing.
        max_shard_size: bytes of tensors per file.
        resume_key: names the tensors' sources; an interrupted run with the same key and tensors is gone on with.
            None: every run starts anew.
        on_progress: called with bytes written so far and in all.
        after_shard: called when all tensors of a file are made, e.g. to unmap their sources; may raise.
    Returns:
        Number of weight files, and how many of them an interrupted run had finished.
    Raises:
        CheckpointError: no space left, another process writes to the folder, or the folder may not be replaced.
    """
    total = _nbytes(tensors)
    with Destination(folder, replace) as destination:
        part, shards = destination.part, in_shards(tensors, lambda tensor: tensor.nbytes, max_shard_size)
        plan = dict(zip(destination.shard_names(len(shards)), shards))
        finished = _finished(part, plan, metadata, resume_key)
        try:
            _require_space(part, total - sum(_nbytes(plan[name]) for name in finished))
            done = 0
            with ShardWriter(metadata) as writer:
                for name, shard in plan.items():
                    if name not in finished:
                        writer.write(part / name, shard, lambda written, done=done: on_progress(done + written, total))
                        after_shard()
                    done += _nbytes(shard)
                    on_progress(done, total)
            _write_other_files(part, plan, total, files)
            changed = next((part / name for name in plan if not _is_whole(part / name, plan[name], metadata)), None)
            if changed:
                raise CheckpointError(f"{changed} has been changed by another process; run the same again")
            (part / _PLAN_FILE).unlink()
            destination.publish()
        except BaseException as error:
            if resume_key is None or not any(part.glob("*.safetensors")):
                destination.discard()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CheckpointError(f"no space left at {part.parent}; make room and run the same again") from None
            raise
    return len(shards), len(finished)


def _nbytes(tensors: Sequence[NewTensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _finished(
    part: Path, plan: dict[str, list[NewTensor]], metadata: dict[str, str], resume_key: str | None
) -> set[str]:
    """Names of the files that an interrupted run of the same plan has finished; all other files are deleted."""
    tensors = {name: [[t.name, t.dtype, t.shape] for t in shard] for name, shard in plan.items()}
    key = hashlib.sha256(json.dumps([resume_key, metadata, tensors]).encode()).hexdigest()
    note = part / _PLAN_FILE
    same = resume_key is not None and note.exists() and note.read_text() == key
    finished = {name for name, shard in plan.items() if same and _is_whole(part / name, shard, metadata)}
    for file in part.iterdir():
        if file.name not in finished:
            file.unlink()
    note.write_text(key)
    return finished


def _is_whole(file: Path, tensors: Sequence[NewTensor], metadata: dict[str, str]) -> bool:
    """Whether a file has the header and the size of `tensors`."""
    header = header_of(tensors, metadata)
    if not file.exists() or file.stat().st_size != len(header) + _nbytes(tensors):
        return False
    with open(file, "rb") as stream:
        return stream.read(len(header)) == header


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise CheckpointError(f"no space at {part.parent}: {needed:,} bytes are needed, {free:,} are free")


def _write_other_files(
    part: Path, plan: dict[str, list[NewTensor]], total: int, files: Mapping[str, Path | str]
) -> None:
    """Write the index, and the files beside the weights."""
    if len(plan) > 1:
        weight_map = {tensor.name: name for name, shard in plan.items() for tensor in shard}
        (part / INDEX_FILE).write_text(index_text(weight_map, total))
    for name, content in files.items():
        if isinstance(content, str):
            (part / name).write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, part / name)
