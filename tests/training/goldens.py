"""Goldens of upstream's training (`tests/goldens/training`), and tensors under upstream's names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from convert.folder import read_config
from convert.mappings import rules_for

FOLDER = Path(__file__).parent.parent / "goldens" / "training"
CHECKPOINT = FOLDER / "checkpoint"
MEAN, STD = ([[[m]] for m in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def golden(name: str) -> dict:
    """Content of a JSON file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def tensors(name: str) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file."""
    return load_file(FOLDER / f"{name}.safetensors")


def normalised(tiles: np.ndarray) -> np.ndarray:
    """uint8 tiles [T, 3, S, S] as the model takes them."""
    return (tiles.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


def upstream_tensors(arrays: dict[str, np.ndarray], checkpoint: Path = CHECKPOINT) -> dict[str, np.ndarray]:
    """Tensors of our names and layout under upstream's, as far as all parts of one are there."""
    found = {}
    for rule in rules_for(read_config(checkpoint)):
        if all(name in arrays for name in rule.ours):
            for output in rule.backward():
                found[output.name] = np.empty(output.shape, np.float32)
                output.fill(arrays.__getitem__, found[output.name], 0, output.shape[0])
    return found


def relative_error(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))
