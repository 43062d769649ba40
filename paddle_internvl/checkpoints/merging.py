"""Merging of LoRA adapters into checkpoints: while loading, or into a plain checkpoint on disk. No network is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from convert import CheckpointError
from convert.adapter import Adapter, with_whole_targets
from convert.adapter_folder import adapter_layout, base_of, read_adapter, write_adapter
from convert.adapter_peft import is_unmerged, split_unmerged
from convert.checkpoint_writer import write_checkpoint
from convert.dtypes import FLOATS
from convert.folder import files_beside, read_config
from convert.mappings import paddle_config
from convert.mappings.lora import lora_targets
from convert.safetensors_io import MAX_SHARD_SIZE, Checkpoint
from convert.shard_writer import NewTensor
from convert.streaming import PADDLE_LAYOUT
from paddle_internvl.checkpoints.hub import folder_of, is_id
from paddle_internvl.checkpoints.view import CheckpointView

PROMPT_FIELDS = (  # of config.json, which training may change
    "template", "dynamic_image_size", "use_thumbnail", "min_dynamic_patch", "max_dynamic_patch",
)  # fmt: skip


def base_and_adapter(folder: Path) -> tuple[Path, Path | None]:
    """The base model's folder and the adapter's, of an adapter's folder that names its base; else the folder and None.

    Raises:
        CheckpointError: the base model is a path that does not exist here.
        HubError (ValueError): the base model is not to be had from the hub.
    """
    base = base_of(folder) if folder.is_dir() and adapter_layout(folder) else ""
    return (_base_folder(folder, base), folder) if base else (folder, None)


def _base_folder(adapter: Path, base: str) -> Path:
    """Folder of the base model that an adapter names."""
    if not Path(base).exists() and not is_id(base):
        raise CheckpointError(
            f"{adapter} is a LoRA adapter of {base}, which does not exist here; name the base model: "
            f"merge-lora {adapter} OUT --base CKPT, or chat CKPT --adapter {adapter}"
        )
    return folder_of(base)


def adapted_view(checkpoint: Checkpoint, config: dict, adapter: str | Path | None = None) -> CheckpointView:
    """A checkpoint's tensors with a LoRA adapter merged: the given one, or that of upstream's unmerged checkpoint.

    Args:
        checkpoint: the base model.
        config: its config.json.
        adapter: folder of the adapter; None: none but the checkpoint's own.
    Raises:
        CheckpointError: an adapter that is not supported or does not fit the model.
    """
    found = own_adapter(checkpoint, config)
    if adapter is not None:
        if found is not None:
            raise CheckpointError(f"{checkpoint.folder} holds a LoRA adapter of its own; merge it first (merge-lora)")
        found = read_adapter(Path(adapter), _whole(config))
    if found is None:
        return CheckpointView(checkpoint, config)
    return CheckpointView(checkpoint, config, with_whole_targets(found, lora_targets(_whole(config))))


def adapted_config(config: dict, adapter: str | Path | None) -> dict:
    """A base model's config with the template and the tile limits that an adapter was trained with.

    Args:
        config: config.json of the base model.
        adapter: folder of the adapter, whose config.json counts if it has one; None: none.
    """
    config = paddle_config(config)
    if adapter is None or not (Path(adapter) / "config.json").is_file():
        return config
    trained = paddle_config(read_config(Path(adapter)))
    return {**config, **{name: trained[name] for name in PROMPT_FIELDS if name in trained}}


def own_adapter(checkpoint: Checkpoint, config: dict) -> Adapter | None:
    """The adapter of upstream's checkpoint with unmerged LoRA, whose other tensors get their plain names; or None."""
    if not is_unmerged(checkpoint.tensors):
        return None
    whole = _whole(config)
    return split_unmerged(checkpoint, whole, lora_targets(whole))


def _whole(config: dict) -> dict:
    """The config of a whole model, in upstream's spelling."""
    config = paddle_config(config)
    if "vision_config" not in config or "llm_config" not in config:
        raise CheckpointError("LoRA adapters are supported of whole InternVL models, not of one tower alone")
    return config


def merge_adapter(
    source: str | Path,
    out: str | Path,
    base: str | None = None,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Merge a LoRA adapter into its base model and write a plain checkpoint in Paddle's layout.

    Weights are read and written piece by piece; those that nothing is merged into keep the base model's dtype.

    Args:
        source: folder of an adapter (PEFT's or PaddleNLP's), or upstream's checkpoint with unmerged LoRA.
        out: folder of the checkpoint; empty or missing.
        base: folder or hub id of the base model; None: the one that the adapter names.
        dtype: of merged weights: 'bfloat16', 'float16' or 'float32'; None: float32, in which they are computed.
        max_shard_size: bytes of tensors per file.
        on_progress: called with bytes written so far and in all.
    Returns:
        Number of layers that were merged.
    Raises:
        CheckpointError: nothing to merge, no base model, an adapter that does not fit, or no space left.
    """
    source = Path(source)
    folder, adapter = open_adapted(source, base)
    view = adapted_view(Checkpoint(folder), read_config(folder), None if folder == source else source)
    config = {**adapted_config(read_config(folder), source), "use_llm_lora": 0, "use_backbone_lora": 0}
    tensors = [_new_tensor(view, name, FLOATS[dtype or "float32"]) for name in view.outputs]
    files = {"config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
    for place in (folder, source):  # tokens that were added for training are in the adapter's folder
        files |= files_beside(place)
    write_checkpoint(
        Path(out), tensors, PADDLE_LAYOUT, files, replace=False, max_shard_size=max_shard_size, on_progress=on_progress
    )
    return len(adapter.pairs)


def rewrite_adapter(source: Path, out: Path, layout: str, base: str | None = None) -> int:
    """Write an adapter alone in another layout, with config.json and the tokenizer's files beside it.

    Args:
        source: see `open_adapted`.
        out: folder, empty or missing.
        layout: 'peft' or 'paddlenlp'.
        base: folder or hub id of the base model; None: the one that the adapter names.
    Returns:
        Number of our layers that the adapter has.
    Raises:
        CheckpointError: no base model, an adapter that does not fit, or a layout that can't hold it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty; remove it or choose another folder")
    folder, adapter = open_adapted(source, base)
    named = adapter if base is None else replace(adapter, base=str(folder.resolve()))
    write_adapter(out, named, _whole(read_config(folder)), layout)
    for place in (folder, source):
        config = place / "config.json"
        for file in (*([config] if config.is_file() else ()), *files_beside(place).values()):
            shutil.copyfile(file, out / file.name)
    return len(adapter.pairs)


def open_adapted(source: Path, base: str | None) -> tuple[Path, Adapter]:
    """The base model's folder and the adapter of a source.

    Args:
        source: folder of an adapter (PEFT's or PaddleNLP's), or upstream's checkpoint with unmerged LoRA, which is its
            own base.
        base: folder or hub id of the base model; None: the one that the adapter names.
    Raises:
        CheckpointError: no adapter, no base model, or an adapter that does not fit.
    """
    if not source.is_dir():
        raise CheckpointError(f"{source} does not exist; give the folder of an adapter or of an unmerged checkpoint")
    if adapter_layout(source):
        named = base_of(source)
        if not base and not named:
            raise CheckpointError(f"{source} does not name its base model; give it with --base")
        folder = folder_of(base) if base else _base_folder(source, named)
        return folder, read_adapter(source, _whole(read_config(folder)))
    adapter = own_adapter(Checkpoint(source), read_config(source))
    if adapter is None:
        raise CheckpointError(f"{source} holds no LoRA matrices; there is nothing to merge")
    return source, adapter


def _new_tensor(view: CheckpointView, name: str, merged_dtype: str) -> NewTensor:
    """A tensor of the view, made at once."""
    shape, dtype = view.outputs[name].shape, merged_dtype if view.is_merged(name) else view.dtype(name)
    return NewTensor.at_once(name, dtype, shape, lambda: view.array(name, dtype))
