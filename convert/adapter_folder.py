"""Folders of LoRA adapters, read and written in PEFT's or PaddleNLP's layout. Weights are written as float32.

| layout | files | names |
|---|---|---|
| peft | adapter_config.json, adapter_model.safetensors | base_model.model.<upstream's layer>.lora_A.weight [r, in] |
| paddlenlp | lora_config.json, lora_model_state.pdparams | <our layer>.lora_A [in, r] |
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from convert import CheckpointError, adapter_paddlenlp, adapter_peft
from convert.adapter import Adapter
from convert.folder import ADAPTERS, read_json
from convert.mappings import rules_for
from convert.mappings.lora import lora_targets

LAYOUTS = {"peft": adapter_peft, "paddlenlp": adapter_paddlenlp}


def adapter_layout(folder: Path) -> str | None:
    """'peft' or 'paddlenlp' for an adapter's folder, else None."""
    return next((name for name, layout in LAYOUTS.items() if (folder / layout.CONFIG).is_file()), None)


def base_of(folder: Path) -> str:
    """Folder or hub id of the base model that an adapter's folder names; '' if it names none."""
    layout = LAYOUTS[adapter_layout(folder)]
    return read_json(folder / layout.CONFIG).get("base_model_name_or_path") or ""


def read_adapter(folder: Path, config: dict) -> Adapter:
    """An adapter of PEFT's or PaddleNLP's layout.

    Args:
        folder: of the adapter.
        config: config.json of its base model, in upstream's spelling.
    Raises:
        CheckpointError: no adapter, one of a kind that is not supported, or one that does not fit the model.
    """
    name = adapter_layout(folder)
    if name is None:
        raise CheckpointError(f"{folder} is no LoRA adapter: it has neither {' nor '.join(ADAPTERS)}")
    adapter = LAYOUTS[name].read(folder, lora_targets(config), rules_for(config))
    if not adapter.pairs and not adapter.weights:
        raise CheckpointError(f"{folder} holds no LoRA matrices")
    return replace(adapter, base=base_of(folder))


def write_adapter(folder: Path, adapter: Adapter, config: dict, layout: str = "peft") -> None:
    """Write an adapter's folder.

    Args:
        folder: made if it does not exist.
        adapter: the adapter.
        config: config.json of its base model, in upstream's spelling.
        layout: 'peft' or 'paddlenlp'.
    Raises:
        CheckpointError: PaddleNLP's layout of pairs with several ranks or scales, or of whole weights.
        ValueError: an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}; supported: {', '.join(LAYOUTS)}")
    content, weights = LAYOUTS[layout].files_of(adapter, lora_targets(config), rules_for(config))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / LAYOUTS[layout].WEIGHTS, weights)
    _write(folder / LAYOUTS[layout].CONFIG, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, file)
