"""A model -> a folder that loads back bit for bit.

In: a network. Out: config.json, safetensors in Paddle's layout with the true dtypes in their headers, and the tokenizer
files of the folder the model came from. It knows neither text nor pictures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from paddlenlp.transformers import PretrainedModel

from convert.dtypes import FLOATS, SIZES, cast
from convert.folder import BESIDE_WEIGHTS
from convert.safetensors_io import INDEX_FILE, header_bytes, in_shards, index_text, shard_names
from convert.streaming import PADDLE_LAYOUT
from paddle_internvl.ops.quantized_linear import QuantizedLinear


@dataclass(frozen=True)
class _Entry:
    """One tensor of the folder; its bytes are fetched when they are written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]


def save(model: PretrainedModel, folder: str | os.PathLike, max_shard_size: int = 5_000_000_000) -> None:
    """Write a model.

    Args:
        folder: made if needed; weights that are in it are replaced. max_shard_size: bytes of tensors per file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    entries = _entries(model)
    shards = in_shards(entries, lambda entry: entry.nbytes, max_shard_size)
    names = shard_names(len(shards))
    for old in [*folder.glob("model*.safetensors"), folder / INDEX_FILE]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    for file, shard in zip(names, shards):
        _write(folder / file, shard)
    if len(shards) > 1:
        weight_map = {entry.name: file for file, shard in zip(names, shards) for entry in shard}
        (folder / INDEX_FILE).write_text(index_text(weight_map, sum(entry.nbytes for entry in entries)))
    computes, model.config.dtype = model.config.dtype, _dtype(model)
    model.config.save_pretrained(str(folder))
    model.config.dtype = computes
    came_from = getattr(model, "checkpoint_folder", None)
    if came_from is not None and came_from.resolve() != folder.resolve():
        for name in BESIDE_WEIGHTS:
            if (came_from / name).is_file():
                shutil.copyfile(came_from / name, folder / name)


def _entries(model: PretrainedModel) -> list[_Entry]:
    dtype = FLOATS[_dtype(model)]
    entries = [_entry(name, parameter, dtype) for name, parameter in model.named_parameters()]
    for name, layer in model.named_sublayers():
        if isinstance(layer, QuantizedLinear) and layer.is_awq:
            floats = (layer.inputs, layer.outputs)
            entries.append(_Entry(f"{name}.weight", "F32", floats, lambda layer=layer: layer.dequantized().numpy()))
        elif isinstance(layer, QuantizedLinear):
            packed, scales = layer.packed()
            dtype = _exact_dtype(scales)
            carried = cast(scales.view(np.uint32), "F32", dtype)
            entries.append(_Entry(f"{name}.quant_weight", "I8", packed.shape, lambda packed=packed: packed))
            entries.append(_Entry(f"{name}.quant_scale", dtype, scales.shape, lambda carried=carried: carried))
    return entries


def _dtype(model: PretrainedModel) -> str:
    """'bfloat16' where there are weights of it: on a CPU they may stand beside others in float32. Else the first's."""
    dtypes = [str(parameter.dtype).removeprefix("paddle.") for parameter in model.parameters()]
    return "bfloat16" if "bfloat16" in dtypes else dtypes[0]


def _entry(name: str, parameter, dtype: str) -> _Entry:
    """A parameter as it is; in bfloat16 where the model's others are and it loses nothing."""
    own, shape = FLOATS[str(parameter.dtype).removeprefix("paddle.")], tuple(parameter.shape)
    if (own, dtype) != ("F32", "BF16") or _exact_dtype(parameter.numpy()) != "BF16":
        return _Entry(name, own, shape, lambda: _bytes_of(parameter))
    return _Entry(name, dtype, shape, lambda: cast(_bytes_of(parameter).view(np.uint32), own, dtype))


def _bytes_of(parameter) -> np.ndarray:
    two_bytes = str(parameter.dtype) == "paddle.bfloat16"  # numpy has no such type
    return (parameter.detach().view("int16") if two_bytes else parameter).numpy()


def _exact_dtype(values: np.ndarray) -> str:
    """The smallest float dtype that holds float32 values exactly."""
    bits = values.view(np.uint32)
    for dtype in ("BF16", "F16"):
        if np.abs(values).max(initial=0) < 65504 and np.array_equal(cast(cast(bits, "F32", dtype), dtype, "F32"), bits):
            return dtype
    return "F32"


def _write(file: Path, entries: list[_Entry]) -> None:
    part = file.with_suffix(".tmp")
    with open(part, "wb") as stream:
        stream.write(header_bytes([(entry.name, entry.dtype, entry.shape) for entry in entries], PADDLE_LAYOUT))
        for entry in entries:
            stream.write(np.ascontiguousarray(entry.read()).data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, file)
