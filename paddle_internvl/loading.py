"""A checkpoint folder -> a filled model: the only place where weights meet parameters.

In: a folder (ours, or a raw Hugging Face one) or a hub id, and a model class. Out: the model, strictly filled: every
parameter by one tensor, every tensor used. Raw folders go through `convert`'s own tables on the fly; nothing is
written. It knows neither text nor pictures.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from paddlenlp.transformers import PretrainedModel
from paddlenlp.utils.download import resolve_file_path
from paddlenlp.utils.log import logger

from convert import CheckpointError
from convert.dtypes import FLOATS, SIZES, carrier, cast, is_float
from convert.folder import read_config
from convert.mappings import paddle_config, rules_for
from convert.rules import Copy, Output, plan
from convert.safetensors_io import (
    INDEX_FILE,
    SINGLE_FILE,
    Checkpoint,
    header_bytes,
    in_shards,
    index_text,
    shard_names,
)
from convert.streaming import PADDLE_LAYOUT, is_paddle_layout
from paddle_internvl import runtime

_CARRIED = (
    "generation_config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
)
_PIECE = 1 << 22  # elements that are cast at a time


def resolve_folder(name_or_path: str | os.PathLike, **hub) -> Path:
    """The folder of a checkpoint: itself, or where PaddleNLP's download puts a hub id.

    Args:
        name_or_path: folder, or a hub id. hub: PaddleNLP's `cache_dir`, `from_hf_hub`, `from_aistudio`, `subfolder`.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder

    def fetch(names: list[str]) -> str | None:
        return resolve_file_path(str(name_or_path), names, **hub)

    config = fetch(["config.json"])
    if config is None:
        raise CheckpointError(f"{name_or_path} is neither a folder nor a hub id with a config.json")
    index = fetch([INDEX_FILE])
    shards = sorted(set(json.loads(Path(index).read_text())["weight_map"].values())) if index else [SINGLE_FILE]
    for name in (*shards, *_CARRIED):
        if fetch([name]) is None and name in shards:
            raise CheckpointError(f"{name_or_path} has no {name} on the hub")
    return Path(config).parent


def load(cls, name_or_path, dtype=None, device: str | None = None, config=None, hub: dict | None = None, **overrides):
    """A model of class `cls` with a checkpoint's weights, in evaluation mode.

    Args:
        cls: a network class of `models`. name_or_path: see `resolve_folder`; hub: its keyword arguments.
        dtype: 'bfloat16', 'float16', 'float32' or None; on a CPU it is always float32. device: 'cpu', 'gpu' or None.
        config: instead of the folder's. overrides: fields of the config.
    Raises:
        CheckpointError: weights that do not fit the model, all problems counted. ValueError: an unknown field, dtype
        or device.
    """
    folder = resolve_folder(name_or_path, **(hub or {}))
    checkpoint = Checkpoint(folder)
    if config is None:
        config = cls.config_class.from_dict(paddle_config(read_config(folder)))
    for name, value in overrides.items():
        if not hasattr(config, name):
            raise ValueError(f"{name!r} is neither an argument of from_pretrained nor a field of the config")
        setattr(config, name, value)
    device = runtime.choose_device(device)
    wanted = dtype if dtype is None else str(dtype).removeprefix("paddle.")
    dtype, reason = runtime.choose_dtype(wanted, device)
    if device == "cpu":
        runtime.set_cpu_threads()
        runtime.keep_freed_memory()
    logger.info(f"{folder}: {dtype} on {device} ({reason}), attention: {runtime.choose_attention(device)}")
    config.dtype = dtype
    with paddle.LazyGuard():  # parameters without memory, which the checkpoint's arrays become
        model = cls(config)
    _fill(model, checkpoint, read_config(folder), dtype, device)
    model.checkpoint_folder = folder
    return model.eval()


def _fill(model: PretrainedModel, checkpoint: Checkpoint, config: dict, dtype: str, device: str) -> None:
    if is_paddle_layout(checkpoint):
        outputs = [_whole(name, info.shape) for name, info in checkpoint.tensors.items()]
    else:
        outputs = [
            output for _, output in plan(rules_for(config, checkpoint.tensors), checkpoint.tensors, to_paddle=True)
        ]
    outputs += _tied_head(outputs)
    parameters = dict(model.named_parameters())
    _require_same(parameters, {output.name: output.shape for output in outputs}, checkpoint.folder)
    place = paddle.CPUPlace() if device == "cpu" else paddle.CUDAPlace(int(device.partition(":")[2] or 0))

    def fill(output: Output) -> None:
        tensor = _tensor(output, checkpoint, FLOATS[dtype])
        if device != "cpu":
            tensor = tensor._copy_to(place, True)
        tensor._share_buffer_to(parameters[output.name])

    with ThreadPoolExecutor(runtime.cpu_cores()) as pool:
        list(pool.map(fill, outputs))
    checkpoint.release()


def _tied_head(outputs: list[Output]) -> list[Output]:
    """The head from the embedding, where a checkpoint has no head of its own."""
    made = {output.name: output for output in outputs}
    tied = []
    for name, embedding in made.items():
        prefix, found, _ = name.partition("model.embed_tokens.weight")
        if found and prefix + "lm_head.weight" not in made:
            tied.append(replace(embedding, name=prefix + "lm_head.weight", shape=embedding.shape[::-1],
                                transposed=True, feature_axis=1))  # fmt: skip
    return tied


def _whole(name: str, shape: tuple[int, ...]) -> Output:
    return Output(name, shape, (Copy(name, 0, shape[0], 0),))


def _require_same(parameters: dict, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Every parameter has its tensor, every tensor its parameter, and their shapes agree."""
    unfilled = sorted(parameters.keys() - shapes.keys())
    unused = sorted(shapes.keys() - parameters.keys())
    wrong = [name for name in parameters.keys() & shapes.keys() if tuple(parameters[name].shape) != shapes[name]]
    problems = [f"{len(unfilled)} parameters have no tensor: {', '.join(unfilled[:3])}"] if unfilled else []
    problems += [f"{len(unused)} tensors have no parameter: {', '.join(unused[:3])}"] if unused else []
    problems += [f"{n} has shape {list(shapes[n])}, the model {list(parameters[n].shape)}" for n in sorted(wrong)[:3]]
    if problems:
        raise CheckpointError(f"{folder} does not fit its config.json: {'; '.join(problems)}")


def _tensor(output: Output, checkpoint: Checkpoint, dtype: str) -> paddle.Tensor:
    """A Paddle tensor on the CPU around memory of its own, cast piece by piece."""
    source = checkpoint.tensors[output.copies[0].source].dtype
    if not is_float(source):
        raise CheckpointError(f"{output.name} is {source} in {checkpoint.folder}; only float weights can be loaded")
    memory = np.empty(output.shape, carrier(dtype))
    rows = max(1, _PIECE * output.shape[0] // max(memory.size, 1))
    for first in range(0, output.shape[0], rows):
        last = min(first + rows, output.shape[0])
        if source == dtype:
            output.fill(checkpoint.array, memory[first:last], first, last)
            continue
        piece = np.empty((last - first, *output.shape[1:]), carrier(source))
        output.fill(checkpoint.array, piece, first, last)
        memory[first:last] = cast(piece, source, dtype)
    if dtype == "BF16":
        return paddle.from_dlpack(memory.view(np.int16)).view("bfloat16")
    return paddle.from_dlpack(memory.view({"F32": np.float32, "F16": np.float16}[dtype]))


def save(model: PretrainedModel, folder: str | os.PathLike, max_shard_size: int = 5_000_000_000) -> None:
    """Write a model so that it loads back bit for bit: config, safetensors in Paddle's layout with the true dtype in
    their header, and the tokenizer files of the folder it came from.

    Args:
        folder: made if needed; existing weights in it are replaced. max_shard_size: bytes of tensors per file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(model.named_parameters())
    dtypes = {name: FLOATS[str(p.dtype).removeprefix("paddle.")] for name, p in parameters.items()}
    sizes = {name: p.size * SIZES[dtypes[name]] for name, p in parameters.items()}
    shards = in_shards(list(parameters), sizes.get, max_shard_size)
    names = shard_names(len(shards))
    for old in [*folder.glob("model*.safetensors"), folder / INDEX_FILE]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    for file, shard in zip(names, shards):
        _write(folder / file, {name: (dtypes[name], parameters[name]) for name in shard})
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards) for name in shard}
        (folder / INDEX_FILE).write_text(index_text(weight_map, sum(sizes.values())))
    model.config.dtype = str(next(iter(parameters.values())).dtype).removeprefix("paddle.")
    model.config.save_pretrained(str(folder))
    came_from = getattr(model, "checkpoint_folder", None)
    if came_from is not None and came_from.resolve() != folder.resolve():
        for name in _CARRIED:
            if (came_from / name).is_file():
                shutil.copyfile(came_from / name, folder / name)


def _write(file: Path, parameters: dict[str, tuple[str, paddle.Tensor]]) -> None:
    entries = [(name, dtype, tuple(parameter.shape)) for name, (dtype, parameter) in parameters.items()]
    part = file.with_suffix(".tmp")
    with open(part, "wb") as stream:
        stream.write(header_bytes(entries, PADDLE_LAYOUT))
        for dtype, parameter in parameters.values():
            if dtype == "BF16":  # numpy has no such type
                parameter = parameter.detach().view("int16")
            stream.write(np.ascontiguousarray(parameter.numpy()).data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, file)
