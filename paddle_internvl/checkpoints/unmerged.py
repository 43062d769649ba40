"""Upstream's checkpoint with unmerged LoRA: the layout that upstream's own LoRA training writes and loads.

In: a base model and an adapter. Out: a folder of PEFT-wrapped names, whose config.json has the ranks.

| tensor | name in the folder |
|---|---|
| adapted linear weight | language_model.base_model.model.<layer>.base_layer.weight |
| its matrices | language_model.base_model.model.<layer>.lora_A.default.weight, ...lora_B.default.weight |
| another weight of an adapted tower | language_model.base_model.model.<name> |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.adapter import Adapter, pairs_to_upstream
from convert.adapter_peft import RANKS
from convert.checkpoint_writer import write_checkpoint
from convert.folder import files_beside, read_config
from convert.mappings import paddle_config, rules_for
from convert.mappings.lora import LoraTarget, lora_targets
from convert.outputs import Output
from convert.rules import plan
from convert.safetensors_io import Checkpoint, TensorInfo
from convert.shard_writer import NewTensor
from convert.streaming import UPSTREAM_LAYOUT
from paddle_internvl.checkpoints.merging import open_adapted, own_adapter
from paddle_internvl.checkpoints.view import CheckpointView

_SCALE = 2.0  # upstream's alpha is twice the rank
Matrices = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_unmerged(source: str | Path, out: str | Path, base: str | None = None) -> int:
    """Write an adapter and its base model as upstream's checkpoint with unmerged LoRA.

    Upstream has one rank for all layers of a tower, and alpha twice the rank: smaller ranks are filled with zeros, and
    other scales go into B.

    Args:
        source: folder of an adapter, see `open_adapted`.
        out: folder of the checkpoint; empty or missing.
        base: folder or hub id of the base model; None: the one that the adapter names.
    Returns:
        Number of our layers that the adapter has.
    Raises:
        CheckpointError: no base model, an adapter that does not fit, or no space left.
    """
    folder, adapter = open_adapted(Path(source), base)
    config, checkpoint = paddle_config(read_config(folder)), Checkpoint(folder)
    own_adapter(checkpoint, config)  # gives the tensors of an unmerged source their plain names
    view = CheckpointView(checkpoint, read_config(folder), replace(adapter, pairs={}))
    matrices, ranks = _matrices(adapter, lora_targets(config))
    tensors = [*_base_tensors(view, config, ranks, matrices), *_lora_tensors(matrices)]
    fields = {**config, **{field: ranks.get(tower, 0) for tower, field in RANKS.items()}}
    files: dict[str, Path | str] = {"config.json": json.dumps(fields, indent=2, ensure_ascii=False) + "\n"}
    for place in (folder, Path(source)):
        files |= files_beside(place)
    write_checkpoint(Path(out), tensors, UPSTREAM_LAYOUT, files, replace=False)
    return len(adapter.pairs)


def _matrices(adapter: Adapter, targets: Sequence[LoraTarget]) -> tuple[Matrices, dict[str, int]]:
    """A [r, in] and B [out, r] of every target of the adapted towers, and the rank of each tower."""
    pairs = pairs_to_upstream(adapter.pairs, targets)
    other = next((target.upstream for target in targets if target.upstream in pairs and not target.in_block), None)
    if other is not None:
        raise CheckpointError(f"upstream has no LoRA of {other}, only of the layers of blocks; write PEFT's layout")
    targets = [target for target in targets if target.in_block]
    towers = {target.upstream: target.tower for target in targets}
    ranks: dict[str, int] = {}
    for name, (a, _, _) in pairs.items():
        ranks[towers[name]] = max(ranks.get(towers[name], 0), len(a))
    matrices = {}
    for target in targets:
        if target.tower in ranks:
            outputs, inputs = target.weight.shapes[0]
            empty = np.zeros((0, inputs), np.float32), np.zeros((outputs, 0), np.float32), _SCALE
            a, b, scale = pairs.get(target.upstream, empty)
            missing = ranks[target.tower] - len(a)
            scaled = b * np.float32(scale / _SCALE)
            matrices[target.upstream] = np.pad(a, ((0, missing), (0, 0))), np.pad(scaled, ((0, 0), (0, missing)))
    return matrices, ranks


def _base_tensors(
    view: CheckpointView, config: dict, towers: Mapping[str, int], matrices: Matrices
) -> Iterator[NewTensor]:
    """The base model's tensors in upstream's layout, under PEFT's names."""
    infos = {
        name: TensorInfo(name, view.dtype(name), output.shape, view.checkpoint.folder, 0)
        for name, output in view.outputs.items()
    }
    for _, output in plan(rules_for(config), infos, to_paddle=False):
        dtype = infos[output.copies[0].source].dtype
        layer, _, kind = output.name.rpartition(".")
        name = f"{layer}.base_layer.{kind}" if layer in matrices else output.name
        yield NewTensor.at_once(_wrapped(name, towers), dtype, output.shape, _filled(view, output))


def _filled(view: CheckpointView, output: Output):
    """A function that makes a tensor of upstream's from those of the view."""

    def make() -> np.ndarray:
        arrays = {copy.source: view.array(copy.source) for copy in output.copies}
        out = np.empty(output.shape, next(iter(arrays.values())).dtype)
        output.fill(arrays.__getitem__, out, 0, output.shape[0])
        return out

    return make


def _lora_tensors(matrices: Matrices) -> Iterator[NewTensor]:
    for layer, pair in matrices.items():
        for kind, matrix in zip(("lora_A", "lora_B"), pair):
            carried = np.ascontiguousarray(matrix).view(np.uint32)
            name = _wrapped(f"{layer}.{kind}.default.weight", RANKS)
            yield NewTensor.at_once(name, "F32", matrix.shape, lambda carried=carried: carried)


def _wrapped(name: str, towers: Mapping) -> str:
    """PEFT's name of a tensor of the wrapped towers."""
    tower, _, rest = name.partition(".")
    return f"{tower}.base_model.model.{rest}" if tower in towers else name
