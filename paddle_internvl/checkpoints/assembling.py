"""Assembling: a new model of a vision tower, a language model and a projector, written as a checkpoint folder.

In: folders of the parts. Out: a folder in Paddle's layout: weights, config.json, and the language model's tokenizer
with InternVL's special tokens. Weights are read and written one at a time; no network is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import paddle

from convert import CheckpointError
from convert.checkpoint_writer import write_checkpoint
from convert.dtypes import FLOATS, cast
from convert.folder import read_config
from convert.mappings import paddle_config, projector
from convert.shard_writer import NewTensor
from convert.streaming import PADDLE_LAYOUT
from paddle_internvl.checkpoints.parts import Part, open_part, open_projector
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.vision import resize_positions
from paddle_internvl.prompt.special_tokens import ADDED
from paddle_internvl.tokenizers.token_files import TokenizerFiles, add_special_tokens

_POSITIONS = "vision_model.embeddings.position_embedding"
_EMBEDDING, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
_DEFAULTS = {"downsample_ratio": 0.5, "select_layer": -1, "ps_version": "v2"}  # upstream's
_OF_OTHERS = ("auto_map", "_name_or_path")  # fields of a part's config that name another folder's files
_ROWS = 4096  # of a vocabulary that are averaged at a time


def assemble(
    folder: str | Path, vision_path: str, llm_path: str, mlp_path: str | None = None, *, template: str,
    force_image_size: int | None = None, seed: int = 42, notes: Mapping[str, str] | None = None, **fields,
) -> None:  # fmt: skip
    """Assemble a model of a vision tower and a language model, and write its checkpoint.

    Tokens of InternVL that the tokenizer lacks are added; their rows in the embedding and in the head are the mean of
    the other rows. Rows beyond the tokenizer are cut off then, as upstream does.

    Args:
        folder: of the new checkpoint, empty or missing.
        vision_path: folder or hub id of an InternVL, or of an InternViT alone.
        llm_path: folder or hub id of an InternVL, or of a language model alone; its tokenizer is taken.
        mlp_path: folder or hub id of an InternVL whose projector fits, or a .safetensors file of `mlp1`; None: a new
            projector, initialised as PyTorch's layers.
        template: name of the conversation template.
        force_image_size: S, tile side in pixels; other than the tower's, its position embedding is resized. None: the
            tower's.
        seed: of a new projector.
        notes: further files of the folder, name -> text.
        fields: other fields of `InternVLChatConfig`, e.g. select_layer.
    Raises:
        CheckpointError: parts that are missing or do not fit each other, or no space left.
        ValueError: a field with a value that is not supported.
    Source: upstream `internvl_chat_finetune.py`, `main`. It leaves the new rows of the embedding random.
    """
    tower, decoder = open_part(vision_path, "vision_model"), open_part(llm_path, "language_model")
    config = {**_DEFAULTS, "template": template, **fields, "vision_config": tower.config, "llm_config": decoder.config}
    _write(Path(folder), config, tower, decoder, mlp_path, force_image_size, seed, notes or {})


def resize(
    folder: str | Path, name_or_path: str, mlp_path: str | None = None, *, force_image_size: int | None = None,
    notes: Mapping[str, str] | None = None, **fields,
) -> None:  # fmt: skip
    """Write a whole model with another tile side, with special tokens that its tokenizer lacks, or another projector.

    Args:
        folder: of the new checkpoint, empty or missing.
        name_or_path: folder or hub id of the model.
        mlp_path: see `assemble`; None: the model's own projector.
        force_image_size: see `assemble`.
        notes: further files of the folder, name -> text.
        fields: of the config, in place of the model's.
    Raises:
        CheckpointError: a projector that does not fit, or no space left.
        ValueError: a field with a value that is not supported.
    """
    tower, decoder = open_part(name_or_path, "vision_model"), open_part(name_or_path, "language_model")
    config = {**paddle_config(read_config(tower.folder)), **fields}
    _write(Path(folder), config, tower, decoder, mlp_path or name_or_path, force_image_size, 0, notes or {})


def _write(
    folder: Path, config: dict, tower: Part, decoder: Part, mlp_path: str | None, force_image_size: int | None,
    seed: int, notes: Mapping[str, str],
) -> None:  # fmt: skip
    tokenizer = add_special_tokens(decoder.folder, ADDED)
    config = _config(config, tokenizer, force_image_size)
    fields = {**vars(config), "vision_config": vars(config.vision_config), "llm_config": vars(config.llm_config)}
    dtype = decoder.dtype(_EMBEDDING)
    tensors = [
        *_tensors(tower, {_POSITIONS: _positions(tower, config.tile_sizes.grid)}),
        *(_tensors(open_projector(mlp_path, fields)) if mlp_path else _new_projector(fields, dtype, seed)),
        *_tensors(decoder, _with_new_rows(decoder, len(tokenizer.new), tokenizer.size)),
    ]
    files = {**tokenizer.files, **notes, "config.json": _text(config, dtype)}
    write_checkpoint(folder, tensors, PADDLE_LAYOUT, files, replace=False)


def _config(config: dict, tokenizer: TokenizerFiles, force_image_size: int | None) -> InternVLChatConfig:
    """The new model's config, checked."""
    vision, llm = (
        {k: v for k, v in config[f"{part}_config"].items() if k not in _OF_OTHERS} for part in ("vision", "llm")
    )
    side = force_image_size or config.get("force_image_size") or vision.get("image_size", 224)
    vision["image_size"] = side
    if tokenizer.new:
        llm["vocab_size"] = tokenizer.size
    whole = {name: value for name, value in config.items() if name not in _OF_OTHERS}
    merged = {"use_llm_lora": 0, "use_backbone_lora": 0}  # adapters of the parts are merged
    return InternVLChatConfig.from_dict(
        {**whole, **merged, "vision_config": vision, "llm_config": llm, "force_image_size": side}
    )


def _text(config: InternVLChatConfig, dtype: str) -> str:
    name = next(name for name, code in FLOATS.items() if code == dtype)
    return json.dumps({**config.to_diff_dict(saving_file=True), "torch_dtype": name}, indent=2, sort_keys=True) + "\n"


def _tensors(part: Part, changed: Mapping[str, tuple[tuple[int, ...], Callable]] | None = None) -> Iterator[NewTensor]:
    """The tensors of a part, some of them changed: name -> shape, and a function that makes it."""
    for name in part.names:
        shape, make = (changed or {}).get(name, (part.shape(name), lambda name=name: part.array(name)))
        yield NewTensor.at_once(name, part.dtype(name), shape, make)


def _positions(tower: Part, grid: int) -> tuple[tuple[int, ...], Callable[[], np.ndarray]]:
    """Shape and values of the position embedding for a patch grid."""
    _, rows, width = tower.shape(_POSITIONS)

    def make() -> np.ndarray:
        carried, dtype = tower.array(_POSITIONS), tower.dtype(_POSITIONS)
        if rows == 1 + grid**2:
            return carried
        table = paddle.to_tensor(cast(carried, dtype, "F32").view(np.float32), place=paddle.CPUPlace())
        return cast(resize_positions(table, grid, grid).numpy().view(np.uint32), "F32", dtype)

    return (1, 1 + grid**2, width), make


def _with_new_rows(decoder: Part, new: int, size: int) -> dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]]:
    """Shapes and values of embedding [V, D] and head [D, V] with the last `new` of `size` rows new."""
    if not new:
        return {}
    rows, width = decoder.shape(_EMBEDDING)
    if rows < size - new:
        raise CheckpointError(
            f"{decoder.folder}: the tokenizer has {size - new} tokens, the embedding {rows} rows; give a language "
            "model with its own tokenizer"
        )

    def make(name: str, transposed: bool) -> np.ndarray:
        carried, dtype = decoder.array(name), decoder.dtype(name)
        kept = (carried.T if transposed else carried)[: size - new]
        mean = _mean(kept, dtype)
        table = np.concatenate([kept, np.broadcast_to(mean, (new, width))])
        return table.T if transposed else table

    return {_EMBEDDING: ((size, width), lambda: make(_EMBEDDING, False)),
            _HEAD: ((width, size), lambda: make(_HEAD, True))}  # fmt: skip


def _mean(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Mean of the rows of a table, as carried bytes [D]."""
    total = np.zeros(rows.shape[1])
    for first in range(0, len(rows), _ROWS):
        floats = cast(np.ascontiguousarray(rows[first : first + _ROWS]), dtype, "F32").view(np.float32)
        total += floats.sum(axis=0, dtype=np.float64)
    return cast((total / len(rows)).astype(np.float32).view(np.uint32), "F32", dtype)


def _new_projector(config: dict, dtype: str, seed: int) -> Iterator[NewTensor]:
    """Tensors of `mlp1` with PyTorch's initial values: LayerNorm's ones and zeros; uniform within 1 / sqrt(inputs) for
    weights and biases of linear layers."""
    rng, inputs = np.random.default_rng(seed), 0
    for rule in projector.rules(config):
        name, shape = rule.ours[0], rule.our_shapes()[0]
        inputs = shape[0] if len(shape) == 2 else inputs
        if name.startswith("mlp1.0."):
            values = np.full(shape, float(name.endswith("weight")), np.float32)
        else:
            values = rng.uniform(-(inputs**-0.5), inputs**-0.5, shape).astype(np.float32)
        carried = cast(values.view(np.uint32), "F32", dtype)
        yield NewTensor.at_once(name, dtype, shape, lambda carried=carried: carried)
