"""Random checkpoints in upstream's layout, the same on every machine. numpy only: the golden script uses them too."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np

from convert.dtypes import cast
from convert.mappings import rules_for
from convert.safetensors_io import header_bytes, in_shards, index_text, shard_names

ROOT = Path(__file__).parent.parent
TINY = ROOT / "configs/tiny"
TOKENIZER = ROOT / "demo/checkpoints/internvl-tiny"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def tiny_config(case: str) -> dict:
    """A config of configs/tiny."""
    return json.loads((TINY / f"{case}.json").read_text())


def random_weight(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 weights that depend on name and seed alone; norms near 1, the rest of a size that keeps activations
    alive."""
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = draw.normal(0, 1.2 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.3, shape)
    if "norm" in name and name.endswith("weight") or name == "mlp1.0.weight":
        values += 1
    return values.astype(np.float32)


def upstream_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor that upstream has for a config."""
    return {name: shape for rule in rules_for(config) for name, shape in zip(rule.upstream, rule.shapes)}


def random_checkpoint(folder: Path, config: dict, max_shard_size: int = 1 << 40, seed: int = 0) -> Path:
    """Write a Hugging Face folder with random weights, in config.json's torch_dtype, and a tokenizer."""
    folder.mkdir(parents=True)
    code = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[config.get("torch_dtype", "bfloat16")]
    shapes = upstream_shapes(config)
    size = 4 if code == "F32" else 2
    shards = in_shards(list(shapes), lambda name: int(np.prod(shapes[name])) * size, max_shard_size)
    files = dict(zip(shard_names(len(shards)), shards))
    for file, names in files.items():
        with open(folder / file, "wb") as stream:
            stream.write(header_bytes([(name, code, shapes[name]) for name in names], {"format": "pt"}))
            for name in names:
                stream.write(cast(random_weight(name, shapes[name], seed).view(np.uint32), "F32", code).tobytes())
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        (folder / "model.safetensors.index.json").write_text(index_text(weight_map, 0))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 4]}))
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER / name, folder / name)
    return folder


def random_pixels(tiles: int, side: int, seed: int = 0) -> np.ndarray:
    """float32 [T, 3, S, S] that looks like normalised pictures."""
    return np.random.default_rng([seed, tiles, side]).normal(0, 1, (tiles, 3, side, side)).astype(np.float32)
