"""Folders of LoRA adapters, read and written in PEFT's or PaddleNLP's layout. Weights are written as float32.

| layout | files | names |
|---|---|---|
| peft | adapter_config.json, adapter_model.safetensors | base_model.model.<upstream's layer>.lora_A.weight [r, in] |
| paddlenlp | lora_config.json, lora_model_state.pdparams | <our layer>.lora_A [in, r] |
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from convert import CheckpointError, adapter_paddlenlp, adapter_peft
from convert.adapter import Adapter
from convert.folder import ADAPTERS, read_json
from convert.mappings.lora import LoraTarget

LAYOUTS = {"peft": adapter_peft, "paddlenlp": adapter_paddlenlp}


def adapter_layout(folder: Path) -> str | None:
    """'peft' or 'paddlenlp' for an adapter's folder, else None."""
    return next((name for name, layout in LAYOUTS.items() if (folder / layout.CONFIG).is_file()), None)


def base_of(folder: Path) -> str:
    """Folder or hub id of the base model that an adapter's folder names; '' if it names none."""
    layout = LAYOUTS[adapter_layout(folder)]
    return read_json(folder / layout.CONFIG).get("base_model_name_or_path") or ""


def read_adapter(folder: Path, targets: Sequence[LoraTarget]) -> Adapter:
    """An adapter of PEFT's or PaddleNLP's layout.

    Args:
        folder: of the adapter.
        targets: of its base model, see `lora_targets`.
    Raises:
        CheckpointError: no adapter, one of a kind that is not supported, or one that does not fit the model.
    """
    name = adapter_layout(folder)
    if name is None:
        raise CheckpointError(f"{folder} is no LoRA adapter: it has neither {' nor '.join(ADAPTERS)}")
    pairs = LAYOUTS[name].read_pairs(folder, targets)
    if not pairs:
        raise CheckpointError(f"{folder} holds no LoRA matrices")
    return Adapter(pairs, base_of(folder))


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
    config, content = LAYOUTS[layout].files_of(adapter, targets)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / LAYOUTS[layout].WEIGHTS, content)
    _write(folder / LAYOUTS[layout].CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, file)
