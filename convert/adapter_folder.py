"""Folders of LoRA adapters: PEFT's, PaddleNLP's, and upstream's checkpoints with unmerged adapters.

In: a folder and the LoRA targets of its base model. Out: an `Adapter`; and the other way, in PEFT's or PaddleNLP's
layout. Weights are float32. A pickle is read without running code: it may hold arrays and nothing else.

| layout | files | names |
|---|---|---|
| peft | adapter_config.json, adapter_model.safetensors | base_model.model.<upstream's layer>.lora_A.weight [r, in] |
| paddlenlp | lora_config.json, lora_model_state.pdparams | <our layer>.lora_A [in, r] |
| upstream | a whole checkpoint | language_model.base_model.model.<layer>.lora_A.default.weight |
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.adapter import Adapter, LoraPair, pairs_from_upstream, pairs_to_upstream, require_layers
from convert.dtypes import cast
from convert.folder import read_json
from convert.mappings.lora import LoraTarget
from convert.safetensors_io import Checkpoint, header_bytes, read_header

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PADDLENLP_CONFIG, PADDLENLP_WEIGHTS = "lora_config.json", "lora_model_state.pdparams"
LAYOUTS = ("peft", "paddlenlp")
_TOWERS = ("language_model.", "vision_model.")
_WRAPPER = "base_model.model."
_MATRIX = re.compile(r"(.+)\.(lora_[AB])(?:\.default)?(?:\.weight)?")
_REFUSED = {  # fields of the two configs whose set values change the meaning of the weights
    PEFT_CONFIG: {"use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False,
                  "megatron_config": None, "layer_replication": None},
    PADDLENLP_CONFIG: {"pissa": False, "loraga": False, "use_mora": False, "lora_use_mixer": False,
                       "trainable_bias": None, "trainable_modules": None, "do_qat": False},
}  # fmt: skip


def adapter_layout(folder: Path) -> str | None:
    """'peft' or 'paddlenlp' for an adapter's folder, else None."""
    names = {PEFT_CONFIG: "peft", PADDLENLP_CONFIG: "paddlenlp"}
    return next((layout for name, layout in names.items() if (folder / name).is_file()), None)


def base_of(folder: Path) -> str:
    """Folder or hub id of the base model that an adapter's folder names; '' if it names none."""
    name = PEFT_CONFIG if adapter_layout(folder) == "peft" else PADDLENLP_CONFIG
    return read_json(folder / name).get("base_model_name_or_path") or ""


def read_adapter(folder: Path, targets: Sequence[LoraTarget]) -> Adapter:
    """An adapter of PEFT's or PaddleNLP's layout.

    Args:
        folder: of the adapter.
        targets: of its base model, see `lora_targets`.
    Raises:
        CheckpointError: no adapter, one of a kind that is not supported, or one that does not fit the model.
    """
    layout = adapter_layout(folder)
    if layout is None:
        raise CheckpointError(f"{folder} is no LoRA adapter: it has neither {PEFT_CONFIG} nor {PADDLENLP_CONFIG}")
    read = _read_peft if layout == "peft" else _read_paddlenlp
    pairs = read(folder, targets)
    if not pairs:
        raise CheckpointError(f"{folder} holds no LoRA matrices")
    return Adapter(pairs, base_of(folder))


def _config(folder: Path, name: str) -> dict:
    config = read_json(folder / name)
    for field, default in _REFUSED[name].items():
        if config.get(field, default) not in (default, None, [], {}):
            raise CheckpointError(f"{folder / name}: {field}={config[field]!r} is not supported")
    return config


def _read_peft(folder: Path, targets: Sequence[LoraTarget]) -> dict[str, LoraPair]:
    config = _config(folder, PEFT_CONFIG)
    if config.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{folder / PEFT_CONFIG}: peft_type={config['peft_type']!r}; only LORA is supported")
    file = folder / PEFT_WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder} lacks {PEFT_WEIGHTS}; save the adapter as safetensors")
    infos, _ = read_header(file)
    data = np.memmap(file, np.uint8, "r")
    tensors = {}
    for name, info in infos.items():
        raw = np.array(data[info.offset : info.offset + info.nbytes]).view(f"u{info.nbytes // math.prod(info.shape)}")
        tensors[name] = cast(raw.reshape(info.shape), info.dtype, "F32").view(np.float32)
    layers = {target.upstream for target in targets}
    matrices = _pairs_by_layer({_placed(name.replace(_WRAPPER, ""), layers): value for name, value in tensors.items()})
    scales = {}
    for name, pair in matrices.items():
        alpha = next((a for key, a in (config.get("alpha_pattern") or {}).items() if _fits(key, name)), None)
        alpha = config["lora_alpha"] if alpha is None else alpha
        scales[name] = _scale(alpha, pair["lora_A"].shape[0], config.get("use_rslora"))
    return pairs_from_upstream(matrices, scales, targets)


def _fits(pattern: str, layer: str) -> bool:
    """Whether a key of PEFT's `alpha_pattern` is that of a layer."""
    return re.fullmatch(rf"(.*\.)?({pattern})", layer) is not None


def _scale(alpha: float, rank: int, rslora: bool | None) -> float:
    return alpha / (math.sqrt(rank) if rslora else rank)


def _placed(name: str, layers) -> str:
    """A matrix's name in the whole model, where the adapter was saved of the language model or the tower alone."""
    found = _MATRIX.fullmatch(name)
    if found is None or found[1] in layers:
        return name
    return next((tower + name for tower in _TOWERS if tower + found[1] in layers), name)


def _pairs_by_layer(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> its two matrices."""
    matrices: dict[str, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise CheckpointError(f"the adapter's tensor {name} is no LoRA matrix of a linear layer")
        matrices.setdefault(found[1], {})[found[2]] = value
    lone = sorted(layer for layer, pair in matrices.items() if len(pair) < 2)
    if lone:
        raise CheckpointError(f"the adapter has one matrix of {lone[0]}, not two ({len(lone)} such layers)")
    return matrices


def _read_paddlenlp(folder: Path, targets: Sequence[LoraTarget]) -> dict[str, LoraPair]:
    config = _config(folder, PADDLENLP_CONFIG)
    file = folder / PADDLENLP_WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder} lacks {PADDLENLP_WEIGHTS}; save the adapter of one rank, merged")
    layers = {name for target in targets for name in target.ours}
    pairs = {}
    for name, pair in _pairs_by_layer({_placed(n, layers): v for n, v in _read_pickle(file).items()}).items():
        scale = _scale(config["lora_alpha"], pair["lora_A"].shape[1], config.get("rslora"))
        pairs[name] = LoraPair(pair["lora_A"], pair["lora_B"], scale)
    require_layers(pairs, layers)
    return pairs


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and containers, and refuses every other class and function."""

    _ALLOWED = {("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy"), ("_frombuffer", "numeric")}

    def find_class(self, module: str, name: str):
        if module.partition(".")[0] != "numpy" or (name, module.rpartition(".")[2]) not in self._ALLOWED:
            raise CheckpointError(f"the pickle needs {module}.{name}, which could run code; it is not read")
        return super().find_class(module, name)


def _read_pickle(file: Path) -> dict[str, np.ndarray]:
    """Arrays of a .pdparams file as float32; Paddle keeps bfloat16 as uint16."""
    with open(file, "rb") as stream:
        try:
            content = _ArrayUnpickler(stream).load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(f"{file} is no readable pickle: {error}") from None
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    return {
        name: cast(value, "BF16", "F32").view(np.float32) if value.dtype == np.uint16 else value.astype(np.float32)
        for name, value in arrays.items()
    }


def split_unmerged(checkpoint: Checkpoint, config: dict, targets: Sequence[LoraTarget]) -> Adapter | None:
    """The adapter of upstream's checkpoint with unmerged LoRA; the checkpoint's other tensors get their plain names.

    Args:
        checkpoint: its `tensors` are renamed, and lose the LoRA matrices.
        config: its config.json; alpha is twice the rank, as upstream's code has it.
        targets: of the model.
    Returns:
        The adapter, or None if there are no LoRA matrices.
    """
    if not any(".lora_A." in name for name in checkpoint.tensors):
        return None
    matrices, plain = {}, {}
    for name, info in checkpoint.tensors.items():
        short = name.replace(_WRAPPER, "").replace(".base_layer.", ".")
        if _MATRIX.fullmatch(short):
            matrices[short] = cast(checkpoint.array(name), info.dtype, "F32").view(np.float32)
        else:
            plain[short] = info
    checkpoint.tensors = plain
    by_layer = _pairs_by_layer(matrices)
    return Adapter(pairs_from_upstream(by_layer, dict.fromkeys(by_layer, 2.0), targets))


def write_adapter(folder: Path, adapter: Adapter, targets: Sequence[LoraTarget], layout: str = "peft") -> None:
    """Write an adapter's folder.

    Args:
        folder: made if it does not exist.
        adapter: the adapter.
        targets: of its base model.
        layout: 'peft' or 'paddlenlp'.
    Raises:
        CheckpointError: PaddleNLP's layout of pairs with several ranks or scales.
        ValueError: an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}; supported: {', '.join(LAYOUTS)}")
    config, name, content = (_peft_files if layout == "peft" else _paddlenlp_files)(adapter, targets)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / name, content)
    config_name = PEFT_CONFIG if layout == "peft" else PADDLENLP_CONFIG
    _write(folder / config_name, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, file)


def _peft_files(adapter: Adapter, targets: Sequence[LoraTarget]) -> tuple[dict, str, bytes]:
    pairs = pairs_to_upstream(adapter.pairs, targets)
    ranks = {name: a.shape[0] for name, (a, _, _) in pairs.items()}
    alphas = {name: scale * ranks[name] for name, (_, _, scale) in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    suffixes = {target.suffix for target in targets if target.upstream in pairs}
    config = {
        "peft_type": "LORA", "task_type": None, "bias": "none", "inference_mode": True, "lora_dropout": 0.0,
        "base_model_name_or_path": adapter.base or None, "r": rank, "lora_alpha": alpha,
        "target_modules": sorted(suffixes),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }  # fmt: skip
    tensors = {}
    for name, (a, b, _) in pairs.items():
        tensors |= {f"{_WRAPPER}{name}.lora_A.weight": a, f"{_WRAPPER}{name}.lora_B.weight": b}
    header = header_bytes([(name, "F32", value.shape) for name, value in tensors.items()], {"format": "pt"})
    return config, PEFT_WEIGHTS, header + b"".join(value.tobytes() for value in tensors.values())


def _paddlenlp_files(adapter: Adapter, targets: Sequence[LoraTarget]) -> tuple[dict, str, bytes]:
    settings = {(pair.a.shape[1], pair.scale) for pair in adapter.pairs.values()}
    if len(settings) > 1:
        raise CheckpointError("PaddleNLP's layout has one rank and one alpha; write this adapter in PEFT's layout")
    ((rank, scale),) = settings
    config = {
        "r": rank, "lora_alpha": scale * rank, "scaling": scale, "lora_dropout": 0.0, "merge_weights": False,
        "base_model_name_or_path": adapter.base or None, "tensor_parallel_degree": -1,
        "target_modules": sorted(re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in adapter.pairs),
    }  # fmt: skip
    config["target_modules"] = sorted(set(config["target_modules"]))
    tensors = {}
    for name, pair in adapter.pairs.items():
        tensors |= {f"{name}.lora_A": pair.a, f"{name}.lora_B": pair.b}
    return config, PADDLENLP_WEIGHTS, pickle.dumps(tensors, protocol=4)
