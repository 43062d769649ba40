"""PaddleNLP's adapter folders: a config and a pickle of arrays, which is read without running code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.adapter import Adapter, LoraPair, require_layers
from convert.adapter_names import adapter_config, matrices_by_layer, name_in_model, scale_of
from convert.dtypes import cast
from convert.mappings.lora import LoraTarget
from convert.rules import Rule

CONFIG, WEIGHTS = "lora_config.json", "lora_model_state.pdparams"
_SUPPORTED = {
    "pissa": False, "loraga": False, "use_mora": False, "lora_use_mixer": False, "trainable_bias": None,
    "trainable_modules": None, "do_qat": False,
}  # fmt: skip


def read(folder: Path, targets: Sequence[LoraTarget], _rules: Sequence[Rule]) -> Adapter:
    """The adapter of a folder of PaddleNLP's layout. Arguments and errors: see `adapter_folder.read_adapter`."""
    config = adapter_config(folder / CONFIG, _SUPPORTED)
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder} lacks {WEIGHTS}; save the adapter of one rank, merged")
    layers = {name for target in targets for name in target.ours}
    pairs = {}
    for name, pair in matrices_by_layer({name_in_model(n, layers): v for n, v in _read_pickle(file).items()}).items():
        scale = scale_of(config["lora_alpha"], pair["lora_A"].shape[1], config.get("rslora"))
        pairs[name] = LoraPair(pair["lora_A"], pair["lora_B"], scale)
    require_layers(pairs, layers)
    return Adapter(pairs)


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


def files_of(adapter: Adapter, _targets: Sequence[LoraTarget], _rules: Sequence[Rule]) -> tuple[dict, bytes]:
    """Config and weight file of an adapter in PaddleNLP's layout.

    Raises:
        CheckpointError: pairs with several ranks or scales, or whole weights.
    """
    if adapter.weights:
        raise CheckpointError(
            f"PaddleNLP's layout has LoRA matrices alone, and {next(iter(adapter.weights))} was trained too; write "
            "PEFT's layout"
        )
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
    return config, pickle.dumps(tensors, protocol=4)
