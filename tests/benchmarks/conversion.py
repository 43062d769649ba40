"""Conversion of a 2 GB sharded bfloat16 checkpoint against `cp` on the same disk, fsync included in both.

    python -m tests.benchmarks.conversion [--rounds 7] [--folder DIR] [--json FILE]

The two take turns; medians and their ratio are reported, and the converter's peak of anonymous memory beside the size
of its largest tensor. The checkpoint has the shapes of InternVL2.5-2B with fewer decoder layers, and random bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from convert.mappings import rules_for
from convert.safetensors_io import Checkpoint, header_bytes, in_shards, index_text, shard_names

CONFIG = {
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "image_size": 448,
        "patch_size": 14,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
    },
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 5,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 92553,
    },
}


def write_checkpoint(folder: Path) -> None:
    """Random bytes in upstream's layout, in shards of 1 GB."""
    folder.mkdir()
    shapes = {name: shape for rule in rules_for(CONFIG) for name, shape in zip(rule.upstream, rule.shapes)}
    shards = in_shards(list(shapes), lambda name: 2 * int(np.prod(shapes[name])), 10**9)
    rng, weight_map = np.random.default_rng(0), {}
    for file, names in zip(shard_names(len(shards)), shards):
        with open(folder / file, "wb") as stream:
            stream.write(header_bytes([(name, "BF16", shapes[name]) for name in names], {"format": "pt"}))
            for name in names:
                stream.write(rng.bytes(2 * int(np.prod(shapes[name]))))
                weight_map[name] = file
    (folder / "model.safetensors.index.json").write_text(index_text(weight_map, 0))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def copy(source: Path, destination: Path) -> float:
    """Seconds that `cp -r` takes, until its files are on disk."""
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", source, destination], check=True)
    subprocess.run(["sync", *destination.iterdir()], check=True)  # fsync of each file
    return time.perf_counter() - begun


def convert(source: Path, destination: Path) -> tuple[float, int]:
    """Seconds that `python -m convert hf2pd` takes as a process of its own, and its peak anonymous memory in bytes."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "convert", "hf2pd", "--src", str(source), "--dst", str(destination)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0
    return time.perf_counter() - begun, peak


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that no file backs."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        source, target = Path(temporary) / "hf", Path(temporary) / "out"
        write_checkpoint(source)
        copies, conversions, peaks = [], [], []
        for _ in range(arguments.rounds):
            for measure in (copy, convert):
                os.sync()
                figure = measure(source, target)
                shutil.rmtree(target)
                if measure is copy:
                    copies.append(figure)
                else:
                    conversions.append(figure[0])
                    peaks.append(figure[1])
        tensors = Checkpoint(source).tensors.values()
        size, largest = sum(info.nbytes for info in tensors), max(info.nbytes for info in tensors)
    cp, ours = statistics.median(copies), statistics.median(conversions)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.rounds} rounds, medians")
    print(f"cp -r + fsync        {cp:6.2f} s  {size / cp / 1e9:5.2f} GB/s")
    print(f"convert hf2pd        {ours:6.2f} s  {size / ours / 1e9:5.2f} GB/s   {cp / ours:.2f} of cp's speed")
    print(f"anonymous memory     {max(peaks) / 1e6:6.0f} MB, largest tensor {largest / 1e6:.0f} MB")
    if arguments.json:
        figures = {"bytes": size, "cp": copies, "convert": conversions, "anonymous": peaks, "largest tensor": largest}
        arguments.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
