"""One checkpoint folder into another: streamed, resumable, audited, and never half there.

In: a source folder, a destination, a direction. Out: the destination folder and an `Audit`. Knows no rule by name.

Work happens in `.DST.part` beside the destination, which is renamed at the very end. Finished shards in it survive a
killed run; the next run with the same plan goes on behind them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from convert import CheckpointError
from convert.dtypes import FLOATS, is_float
from convert.folder import read_config, token_id
from convert.mappings import hf_native, paddle_config, quantized_tables, rules_for
from convert.outputs import Output
from convert.quant_config import Quantization, declared_quantization, with_quantization
from convert.rules import Rule, dtype_of, plan
from convert.safetensors_io import INDEX_FILE, PICKLES, Checkpoint, in_shards, index_text, shard_names
from convert.shard_writer import ShardWriter, Tensor

PADDLE_LAYOUT = {"format": "np", "layout": "paddle_internvl"}
UPSTREAM_LAYOUT = {"format": "pt"}
_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Audit:
    """What a conversion did: counts of tensors, bytes of weights, seconds, and the shards taken from an earlier run."""

    keys_in: int
    keys_out: int
    dropped: int
    bytes_in: int
    bytes_out: int
    shards: int
    resumed: int
    seconds: float

    def __str__(self) -> str:
        resumed = f", {self.resumed} of them from an earlier run" if self.resumed else ""
        return (
            f"{self.keys_in} tensors in, {self.keys_out} out, {self.dropped} dropped on purpose, 0 unused; "
            f"{self.bytes_in:,} -> {self.bytes_out:,} bytes in {self.shards} file(s){resumed}; {self.seconds:.1f} s"
        )


def is_paddle_layout(checkpoint: Checkpoint) -> bool:
    """Whether the linear weights are Paddle's [in, out]: said by the files' metadata, never guessed from shapes."""
    return (checkpoint.metadata or {}).get("format") in ("np", "pd")


def convert(
    source: Path,
    destination: Path,
    *,
    to_paddle: bool,
    layout: str = "upstream",
    quantization: Quantization | None = None,
    dtype: str | None = None,
    max_shard_size: int = 5_000_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Convert a checkpoint folder.

    Args:
        source, destination: folders; the destination must not exist, or be empty.
        to_paddle: Hugging Face -> Paddle, else Paddle -> Hugging Face.
        layout: of the Hugging Face folder to be written, 'upstream' or 'transformers'. Read ones say it themselves.
        quantization: of the decoder blocks' linear weights, on the way to Paddle; Paddle's own methods only.
        dtype: 'bfloat16', 'float16' or 'float32' to cast every float tensor; None keeps the bytes.
        max_shard_size: bytes of tensors per file. progress: called with bytes written so far and in all.
    Returns:
        What was done: tensors, bytes, shards, seconds.
    Raises:
        CheckpointError: anything that keeps the result from being exact and whole; nothing is left at the destination.
    """
    begun = time.monotonic()
    source, destination = Path(source), Path(destination)
    checkpoint = Checkpoint(source)
    rules, config = _rules_and_config(source, checkpoint, to_paddle, layout, quantization)
    _refuse_wrong_direction(checkpoint, to_paddle)
    _refuse_occupied(source, destination)
    planned = plan(rules, checkpoint.tensors, to_paddle=to_paddle)
    tensors = [_tensor(output, checkpoint, dtype) for _, output in planned]
    shards = in_shards(tensors, lambda tensor: tensor.nbytes, max_shard_size)
    files = dict(zip(shard_names(len(shards)), shards))
    total = sum(tensor.nbytes for tensor in tensors)
    part = destination.parent / f".{destination.name}.part"
    finished = _open_part_folder(part, checkpoint, files, to_paddle)
    _refuse_full_disk(part, total - sum((part / name).stat().st_size for name in finished))
    try:
        with ShardWriter(checkpoint, PADDLE_LAYOUT if to_paddle else UPSTREAM_LAYOUT) as writer:
            done = 0
            for name, shard in files.items():
                if name not in finished:
                    writer.write(part / name, shard, partial(_advance, progress, done, total))
                done += sum(tensor.nbytes for tensor in shard)
                progress(done, total)
        _add_other_files(part, source, {**config, "torch_dtype": dtype} if dtype else config, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CheckpointError(f"no space left at {destination.parent}; make room and run the same again") from None
        raise
    _give_name(part, destination)
    used = {copy.source for tensor in tensors for copy in tensor.output.copies}
    return Audit(
        keys_in=len(checkpoint.tensors),
        keys_out=len(tensors),
        dropped=len(checkpoint.tensors) - len(used),
        bytes_in=sum(info.nbytes for info in checkpoint.tensors.values()),
        bytes_out=total,
        shards=len(shards),
        resumed=len(finished),
        seconds=time.monotonic() - begun,
    )


def _advance(progress: Callable[[int, int], None], before: int, total: int, written: int) -> None:
    progress(before + written, total)


def _rules_and_config(
    source: Path, checkpoint: Checkpoint, to_paddle: bool, layout: str, quantization: Quantization | None
) -> tuple[list[Rule], dict]:
    """The table between the two folders, and the config.json that the new one gets."""
    config = read_config(source)
    declared = declared_quantization(config)
    if quantization and declared:
        raise CheckpointError(f"{source} is quantised already ({declared.method}); quantise its float original")
    if to_paddle:
        table, config = rules_for(config, checkpoint.tensors), paddle_config(config)
        if quantization:
            return quantized_tables.rules(table, quantization), with_quantization(config, quantization)
        return table, config
    if layout == "upstream":
        return rules_for(config), config
    native = hf_native.native_config(config, token_id(source, "<IMG_CONTEXT>"))
    return hf_native.rules(native), native


def _tensor(output: Output, checkpoint: Checkpoint, dtype: str | None) -> Tensor:
    source = dtype_of(output, checkpoint.tensors)
    casts = dtype and is_float(source) and output.dtype is None  # AWQ's scales are part of its packing
    return Tensor(output, source, FLOATS[dtype] if casts and not output.name.endswith(".scales") else source)


def _refuse_wrong_direction(checkpoint: Checkpoint, to_paddle: bool) -> None:
    if is_paddle_layout(checkpoint) == to_paddle:
        have, use = ("Paddle's", "pd2hf") if to_paddle else ("Hugging Face's", "hf2pd")
        raise CheckpointError(f"{checkpoint.folder} is in {have} layout already; {use} is the other direction")


def _refuse_occupied(source: Path, destination: Path) -> None:
    if destination.resolve() == source.resolve():
        raise CheckpointError(f"source and destination are the same folder: {source}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} is not empty; remove it or choose another --dst")


def _refuse_full_disk(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        if not any(part.glob("*.safetensors")):
            shutil.rmtree(part)
        raise CheckpointError(f"no space at {part.parent}: {needed:,} bytes are needed, {free:,} are free")


def _open_part_folder(part: Path, checkpoint: Checkpoint, files: dict[str, list[Tensor]], to_paddle: bool) -> set[str]:
    """Make the work folder, or take over an earlier run's; returns the names of the files that are finished."""
    sources = sorted({info.file for info in checkpoint.tensors.values()})
    stamps = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in sources]
    targets = {name: [[t.output.name, t.dtype, t.output.shape] for t in shard] for name, shard in files.items()}
    fingerprint = hashlib.sha256(json.dumps([stamps, targets, to_paddle]).encode()).hexdigest()
    note = part / _PLAN_FILE
    if note.exists() and note.read_text() == fingerprint:
        for unfinished in part.glob("*.tmp"):
            unfinished.unlink()
        return {name for name in files if (part / name).exists()}
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    note.write_text(fingerprint)
    return set()


def _add_other_files(part: Path, source: Path, config: dict, files: dict[str, list[Tensor]]) -> None:
    """The index, and all that stands beside the weights: config, generation config, tokenizer, remote code."""
    if len(files) > 1:
        weight_map = {t.output.name: name for name, shard in files.items() for t in shard}
        total = sum(t.nbytes for shard in files.values() for t in shard)
        (part / INDEX_FILE).write_text(index_text(weight_map, total))
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix not in (".safetensors", *PICKLES) and file.name != INDEX_FILE:
            shutil.copyfile(file, part / file.name)
    if config != read_config(source):
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (part / "config.json").write_text(text + "\n", encoding="utf-8")
    (part / _PLAN_FILE).unlink()


def _give_name(part: Path, destination: Path) -> None:
    for file in part.iterdir():
        _sync(file)
    if destination.exists():
        destination.rmdir()
    os.rename(part, destination)
    _sync(destination.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
