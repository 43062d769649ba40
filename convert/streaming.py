"""Conversion of a checkpoint folder: streamed, resumable, audited.

In: a source folder, a destination, a direction. Out: the destination folder and an `Audit`. `checkpoint_writer`
writes the files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.checkpoint_writer import write_checkpoint
from convert.destination import PART
from convert.dtypes import FLOATS, carrier, cast, is_float
from convert.folder import PICKLES, read_config, token_id
from convert.mappings import hf_native, paddle_config, quantized_tables, rules_for
from convert.outputs import Output
from convert.quant_config import Quantization, declared_quantization, with_quantization
from convert.rules import Rule, dtype_of, plan
from convert.safetensors_io import INDEX_FILE, MAX_SHARD_SIZE, Checkpoint
from convert.shard_writer import NewTensor

PADDLE_LAYOUT = {"format": "np", "layout": "paddle_internvl"}
UPSTREAM_LAYOUT = {"format": "pt"}
_TRANSPOSED_ROWS = 64  # fewest rows of a transpose made at a time: narrower blocks are slow


@dataclass(frozen=True)
class Audit:
    """What a conversion did.

    Attributes:
        keys_in: tensors of the source.
        keys_out: tensors of the destination.
        dropped: tensors of the source that the destination does not need.
        bytes_in: of the source's tensors.
        bytes_out: of the destination's tensors.
        shards: weight files of the destination.
        resumed: those of them that an interrupted run had finished.
        seconds: wall time.
    """

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
    """Whether the linear weights are Paddle's [in, out]; the files' metadata decides, never a shape."""
    return (checkpoint.metadata or {}).get("format") in ("np", "pd")


def convert(
    source: Path,
    destination: Path,
    *,
    to_paddle: bool,
    layout: str = "upstream",
    quantization: Quantization | None = None,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Convert a checkpoint folder.

    Args:
        source: checkpoint folder.
        destination: new folder; it must not exist, or be empty.
        to_paddle: Hugging Face -> Paddle, else Paddle -> Hugging Face.
        layout: of the Hugging Face folder to be written, 'upstream' or 'transformers'.
        quantization: of the decoder blocks' linear weights, on the way to Paddle; weight_only methods only.
        dtype: 'bfloat16', 'float16' or 'float32' to cast every float tensor; None keeps the bytes.
        max_shard_size: bytes of tensors per file.
        progress: called with bytes written so far and in all.
    Returns:
        What was done: tensors, bytes, shards, seconds.
    Raises:
        CheckpointError: anything that keeps the result from being exact and whole; nothing is left at the destination.
    """
    begun = time.monotonic()
    source = Path(source)
    checkpoint = Checkpoint(source)
    stamps = _stamps(checkpoint)
    rules, config = _rules_and_config(source, checkpoint, to_paddle, layout, quantization)
    _refuse_wrong_direction(checkpoint, to_paddle)
    if Path(destination).resolve() == source.resolve():
        raise CheckpointError(f"source and destination are the same folder: {source}")
    planned = plan(rules, checkpoint.tensors, to_paddle=to_paddle)
    tensors = [_tensor(output, checkpoint, dtype) for _, output in planned]

    def after_shard() -> None:
        checkpoint.release()
        if _stamps(checkpoint) != stamps:
            raise CheckpointError(f"{source} has been changed while it was read; run it again")

    shards, resumed = write_checkpoint(
        Path(destination),
        tensors,
        PADDLE_LAYOUT if to_paddle else UPSTREAM_LAYOUT,
        _other_files(source, {**config, "torch_dtype": dtype} if dtype else config),
        replace=False,
        max_shard_size=max_shard_size,
        resume_key=json.dumps([stamps, to_paddle]),
        on_progress=progress,
        after_shard=after_shard,
    )
    used = {copy.source for _, output in planned for copy in output.copies}
    return Audit(
        keys_in=len(checkpoint.tensors),
        keys_out=len(tensors),
        dropped=len(checkpoint.tensors) - len(used),
        bytes_in=sum(info.nbytes for info in checkpoint.tensors.values()),
        bytes_out=sum(tensor.nbytes for tensor in tensors),
        shards=shards,
        resumed=resumed,
        seconds=time.monotonic() - begun,
    )


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


def _tensor(output: Output, checkpoint: Checkpoint, dtype: str | None) -> NewTensor:
    source = dtype_of(output, checkpoint.tensors)
    casts = dtype and is_float(source) and output.dtype is None  # AWQ's scales are part of its packing
    target = FLOATS[dtype] if casts and not output.name.endswith(".scales") else source
    rows = output.shape[0] if output.whole else _TRANSPOSED_ROWS if output.transposed else 1
    return NewTensor(output.name, target, output.shape, partial(_fill, output, checkpoint, source, target), rows)


def _fill(
    output: Output, checkpoint: Checkpoint, source: str, target: str, out: np.ndarray, first: int, last: int
) -> None:
    if source == target:
        output.fill(checkpoint.array, out, first, last)
        return
    rows = np.empty(out.shape, carrier(source))
    output.fill(checkpoint.array, rows, first, last)
    out[:] = cast(rows, source, target)


def _stamps(checkpoint: Checkpoint) -> list:
    """Path, size and time of change of the source files."""
    files = sorted({info.file for info in checkpoint.tensors.values()})
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _refuse_wrong_direction(checkpoint: Checkpoint, to_paddle: bool) -> None:
    if is_paddle_layout(checkpoint) == to_paddle:
        have, use = ("Paddle's", "pd2hf") if to_paddle else ("Hugging Face's", "hf2pd")
        raise CheckpointError(f"{checkpoint.folder} is in {have} layout already; {use} is the other direction")


def _other_files(source: Path, config: dict) -> dict[str, Path | str]:
    """The files beside the weights: config, generation config, tokenizer, remote code."""
    files: dict[str, Path | str] = {
        file.name: file
        for file in sorted(source.iterdir())
        if file.is_file() and file.suffix not in (".safetensors", *PICKLES)
        if file.name != INDEX_FILE and not file.name.startswith(PART)
    }
    if config != read_config(source):
        files["config.json"] = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return files
