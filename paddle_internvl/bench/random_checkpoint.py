"""Checkpoints of random weights in a published shape: upstream's names, layout and dtype, as safetensors.

In: a config.json's dict. Out: a Hugging Face folder. The weights are scaled so that activations keep a size at which
outputs can be compared.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from convert.dtypes import FLOATS, SIZES, cast
from convert.mappings import rules_for
from convert.safetensors_io import header_bytes, in_shards, index_text, shard_names

_SHARD = 5_000_000_000  # bytes, as published
_ROWS = 1 << 24  # numbers drawn at a time


def shallow(config: Mapping, layers: int) -> dict:
    """The config with so many layers in both towers and all widths unchanged."""
    parts = {part: {**config[part], "num_hidden_layers": layers} for part in ("vision_config", "llm_config")}
    return {**config, **parts}


def write_random(folder: Path, config: Mapping, seed: int = 0) -> Path:
    """Write a checkpoint folder in the config's torch_dtype (default: bfloat16), without a tokenizer.

    Args:
        folder: created here.
        config: in upstream's spelling.
        seed: equal seeds give equal bytes.
    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    dtype = FLOATS[config.get("torch_dtype", "bfloat16")]
    shapes = {name: shape for rule in rules_for(config) for name, shape in zip(rule.upstream, rule.shapes)}
    shards = in_shards(list(shapes), lambda name: prod(shapes[name]) * SIZES[dtype], _SHARD)
    files = dict(zip(shard_names(len(shards)), shards))
    for file, names in files.items():
        with open(folder / file, "wb") as stream:
            stream.write(header_bytes([(name, dtype, shapes[name]) for name in names], {"format": "pt"}))
            for name in names:
                for values in _draw(name, shapes[name], seed):
                    stream.write(cast(values.view(np.uint32), "F32", dtype).tobytes())
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        (folder / "model.safetensors.index.json").write_text(index_text(weight_map, 0))
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1))
    return folder


def _draw(name: str, shape: tuple[int, ...], seed: int):
    """float32 values in pieces: norms and LayerScale near 1, matrices by the square root of their inputs."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    matrix = len(shape) > 1 and "embedding" not in name
    spread = prod(shape[1:]) ** -0.5 if matrix else 0.05
    centre = 1.0 if name.endswith(("ls1", "ls2")) or ("norm" in name and name.endswith("weight")) else 0.0
    for first in range(0, prod(shape), _ROWS):
        values = generator.standard_normal(min(_ROWS, prod(shape) - first), np.float32)
        values *= np.float32(spread)
        yield values + np.float32(centre) if centre else values
