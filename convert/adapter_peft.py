"""PEFT's adapter folders, and upstream's checkpoints with unmerged LoRA, which have PEFT's names.

In: files of upstream's layers, matrices [out, in]. Out: pairs of our layers; and the other way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.adapter import (
    Adapter,
    pairs_from_upstream,
    pairs_to_upstream,
    weights_from_upstream,
    weights_to_upstream,
)
from convert.adapter_names import MATRIX, adapter_config, matrices_by_layer, name_in_model, scale_of
from convert.dtypes import carrier, cast, is_float
from convert.mappings.lora import LoraTarget
from convert.rules import Rule
from convert.safetensors_io import Checkpoint, header_bytes, read_header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RANKS = {"language_model": "use_llm_lora", "vision_model": "use_backbone_lora"}  # tower -> field of config.json
_WRAPPER = "base_model.model."
_SUPPORTED = {
    "peft_type": "LORA", "use_dora": False, "bias": "none", "fan_in_fan_out": False, "megatron_config": None,
    "layer_replication": None,
}  # fmt: skip


def read(folder: Path, targets: Sequence[LoraTarget], rules: Sequence[Rule]) -> Adapter:
    """The adapter of a folder of PEFT's layout. Arguments and errors: see `adapter_folder.read_adapter`."""
    config = adapter_config(folder / CONFIG, _SUPPORTED)
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder} lacks {WEIGHTS}; save the adapter as safetensors")
    infos, _ = read_header(file)
    integers = next((name for name, info in infos.items() if not is_float(info.dtype)), None)
    if integers:
        raise CheckpointError(f"{file}: {integers} is {infos[integers].dtype}; only float adapters are supported")
    data, tensors = np.memmap(file, np.uint8, "r"), {}
    for name, info in infos.items():
        carried = np.array(data[info.offset : info.offset + info.nbytes]).view(carrier(info.dtype))
        tensors[name] = cast(carried.reshape(info.shape), info.dtype, "F32").view(np.float32)
    layers = {target.upstream for target in targets}
    names = {name for rule in rules for name in rule.upstream}
    tensors = {name_in_model(name.replace(_WRAPPER, ""), layers, names): value for name, value in tensors.items()}
    matrices = matrices_by_layer({name: value for name, value in tensors.items() if MATRIX.fullmatch(name)})
    weights = {name: value for name, value in tensors.items() if not MATRIX.fullmatch(name)}
    scales = {}
    for name, pair in matrices.items():
        alpha = next((a for key, a in (config.get("alpha_pattern") or {}).items() if _fits(key, name)), None)
        alpha = config["lora_alpha"] if alpha is None else alpha
        scales[name] = scale_of(alpha, pair["lora_A"].shape[0], config.get("use_rslora"))
    return Adapter(pairs_from_upstream(matrices, scales, targets), weights=weights_from_upstream(weights, rules))


def _fits(pattern: str, layer: str) -> bool:
    """Whether a key of PEFT's `alpha_pattern` is that of a layer."""
    return re.fullmatch(rf"(.*\.)?({pattern})", layer) is not None


def is_unmerged(names: Iterable[str]) -> bool:
    """Whether tensors are those of upstream's checkpoint with unmerged LoRA."""
    return any(".lora_A." in name for name in names)


def split_unmerged(checkpoint: Checkpoint, config: dict, targets: Sequence[LoraTarget]) -> Adapter:
    """The adapter of upstream's checkpoint with unmerged LoRA; the checkpoint's other tensors get their plain names.

    Args:
        checkpoint: its `tensors` are renamed, and lose the LoRA matrices.
        config: its config.json, whose `use_llm_lora` and `use_backbone_lora` are upstream's ranks.
        targets: of the model.
    Returns:
        The adapter; alpha is twice the rank, as upstream's code has it.
    Raises:
        CheckpointError: matrices of another rank, whose alpha no file names, or matrices that do not fit the model.
    """
    matrices, plain = {}, {}
    for name, info in checkpoint.tensors.items():
        short = name.replace(_WRAPPER, "").replace(".base_layer.", ".")
        if MATRIX.fullmatch(short):
            matrices[short] = cast(checkpoint.array(name), info.dtype, "F32").view(np.float32)
        else:
            plain[short] = info
    checkpoint.tensors = plain
    by_layer = matrices_by_layer(matrices)
    for name, pair in by_layer.items():
        field, rank = RANKS.get(name.partition(".")[0], ""), len(pair["lora_A"])
        if config.get(field) != rank:
            raise CheckpointError(
                f"{checkpoint.folder}: the LoRA of {name} has rank {rank}, which config.json does not name "
                f"(use_llm_lora, use_backbone_lora), so its alpha is open; save the adapter alone, with its config"
            )
    return Adapter(pairs_from_upstream(by_layer, dict.fromkeys(by_layer, 2.0), targets))


def files_of(adapter: Adapter, targets: Sequence[LoraTarget], rules: Sequence[Rule]) -> tuple[dict, bytes]:
    """Config and weight file of an adapter in PEFT's layout."""
    weights = weights_to_upstream(adapter.weights, rules)
    pairs = pairs_to_upstream(adapter.pairs, targets)
    ranks = {name: a.shape[0] for name, (a, _, _) in pairs.items()}
    alphas = {name: scale * ranks[name] for name, (_, _, scale) in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    suffixes = {target.suffix for target in targets if target.upstream in pairs}
    config = {
        "peft_type": "LORA", "task_type": None, "bias": "none", "inference_mode": True, "lora_dropout": 0.0,
        "base_model_name_or_path": adapter.base or None, "r": rank, "lora_alpha": alpha,
        "target_modules": sorted(suffixes), "modules_to_save": _modules(weights) or None,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }  # fmt: skip
    tensors = {f"{_WRAPPER}{name}": value for name, value in weights.items()}
    for name, (a, b, _) in pairs.items():
        tensors |= {f"{_WRAPPER}{name}.lora_A.weight": a, f"{_WRAPPER}{name}.lora_B.weight": b}
    header = header_bytes([(name, "F32", value.shape) for name, value in tensors.items()], {"format": "pt"})
    return config, header + b"".join(value.tobytes() for value in tensors.values())


def _modules(weights: Collection[str]) -> list[str]:
    """The modules that own weights, for PEFT's `modules_to_save`; none is part of another."""
    owners = {name.rpartition(".")[0] for name in weights}
    return sorted(owner for owner in owners if not any(owner.startswith(f"{other}.") for other in owners))
