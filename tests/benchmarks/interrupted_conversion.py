"""A conversion of 500 MB that is killed at random moments, and on a disk that fills in the middle.

    python -m tests.benchmarks.interrupted_conversion [--kills 30]

The destination of an interrupted run does not exist; the run after it is byte for byte an undisturbed one. Mounts a
tmpfs as the disk, where that is allowed (root). The last line is JSON; exits with an assertion where one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.random_checkpoints import ROOT, random_checkpoint, tiny_config

SIZES = {  # of the language model: 500 MB in float32
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 8,
    "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip


def start(source: Path, target: Path) -> subprocess.Popen:
    words = ["hf2pd", "--src", str(source), "--dst", str(target), "--max-shard-size", "20MB"]
    return subprocess.Popen(
        [sys.executable, "-m", "convert", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def kill(source: Path, target: Path, expected: dict, kills: int, seconds: float) -> int:
    """Kill runs until `kills` were killed, each resuming the one before. Returns how many finished before a kill."""
    moments, killed, finished = random.Random(0), 0, 0
    while killed < kills:
        run = start(source, target)
        try:
            run.wait(moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            run.kill()
            killed += 1
        run.communicate()
        if target.exists():
            assert digests(target) == expected
            finished += 1
            target.rename(target.with_name(f"finished-{finished}"))
    assert start(source, target).wait() == 0 and digests(target) == expected
    return finished


def fill_the_disk(source: Path, disk: Path, expected: dict, total: int) -> str:
    """Convert onto a disk with room enough, which another process fills after the first shards. Returns the error."""
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={total + (40 << 20)}", "tmpfs", str(disk)], check=True)
    try:
        run, target, filler = start(source, disk / "out"), disk / "out", disk / "filler"
        while run.poll() is None and len(list(disk.glob(".out.part/*"))) < 6:
            time.sleep(0.001)
        with open(filler, "wb", buffering=0) as stream, contextlib.suppress(OSError):  # until there is no space left
            while True:
                stream.write(bytes(1 << 20))
        error = run.communicate()[1].decode().strip().splitlines()[-1]
        assert run.returncode == 2 and "no space" in error and not target.exists(), (run.returncode, error)
        filler.unlink()
        assert start(source, target).wait() == 0 and digests(target) == expected
        return error
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = tiny_config("llama")
        config["llm_config"] |= SIZES
        config["torch_dtype"] = "float32"
        source = random_checkpoint(root / "source", config)
        began = time.monotonic()
        assert start(source, root / "expected").wait() == 0
        seconds, expected = time.monotonic() - began, digests(root / "expected")
        total = sum(file.stat().st_size for file in (root / "expected").iterdir())
        finished = kill(source, root / "out", expected, arguments.kills, seconds)
        error = fill_the_disk(source, root / "disk", expected, total) if os.geteuid() == 0 else "not root"
    print(json.dumps({"bytes": total, "kills": arguments.kills, "finished": finished, "full disk": error}))


if __name__ == "__main__":
    main()
