"""Names and scales of LoRA matrices, which all layouts of adapters share."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.folder import read_json

MATRIX = re.compile(r"(.+)\.(lora_[AB])(?:\.default)?(?:\.weight)?")
_TOWERS = ("language_model.", "vision_model.")


def adapter_config(file: Path, supported: Mapping[str, object]) -> dict:
    """Config of an adapter.

    Args:
        file: the JSON file.
        supported: fields that change the meaning of the weights, with the one value that is supported.
    Raises:
        CheckpointError: another value of such a field.
    """
    config = read_json(file)
    for field, default in supported.items():
        if config.get(field, default) not in (default, None, [], {}):
            raise CheckpointError(f"{file}: {field}={config[field]!r} is not supported")
    return config


def scale_of(alpha: float, rank: int, rslora: bool | None) -> float:
    """Factor of an adapter's output: alpha / r, or alpha / sqrt(r) of rank-stabilised LoRA."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def name_in_model(name: str, layers: Collection[str], weights: Collection[str] = ()) -> str:
    """A tensor's name in the whole model, where the adapter was saved of the language model or the tower alone.

    Args:
        name: of a LoRA matrix or a whole weight.
        layers: names of the layers that LoRA adapts.
        weights: names of the weights.
    """
    found = MATRIX.fullmatch(name)
    place, places = (name, weights) if found is None else (found[1], layers)
    return next((tower + name for tower in ("", *_TOWERS) if tower + place in places), name)


def matrices_by_layer(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The two matrices of each layer.

    Args:
        tensors: matrix by name: `<layer>.lora_A`, with or without `.default` and `.weight` behind it.
    Returns:
        Name of the layer -> {'lora_A': ..., 'lora_B': ...}.
    Raises:
        CheckpointError: another tensor, or a layer with one matrix.
    """
    matrices: dict[str, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        found = MATRIX.fullmatch(name)
        if found is None:
            raise CheckpointError(f"the adapter's tensor {name} is no LoRA matrix of a linear layer")
        matrices.setdefault(found[1], {})[found[2]] = value
    lone = sorted(layer for layer, pair in matrices.items() if len(pair) < 2)
    if lone:
        raise CheckpointError(f"the adapter has one matrix of {lone[0]}, not two ({len(lone)} such layers)")
    return matrices
