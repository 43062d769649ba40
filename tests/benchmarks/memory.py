"""The measured peak of memory on a CPU beside the estimate of `paddle_internvl.estimation`.

    python -m tests.benchmarks.memory [CKPT|CONFIG] [--tiles 7] [--context 2048] [--batch 1]

A config.json (default: configs/internvl2_5-1b.json) is first given random weights, in a temporary folder. The last line
is JSON, in bytes: the estimate, what Paddle's allocator, the parameters and the kernels came to, and by how much the
process's anonymous memory really grew (sampled every 2 ms), each divided by the estimate.

Measured with these defaults (random weights of InternVL2_5-1B's shape, 7 tiles, 2,048 tokens, two cores, kernels):
estimate 2.15 GB; allocated / estimate 1.025, anonymous / estimate 0.918 (the embedding is mapped).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

from paddle_internvl.bench import machine
from tests.estimation.measured import allocator_peak
from tests.random_checkpoints import ROOT, random_checkpoint


class Watch(threading.Thread):
    """Samples this process's anonymous memory until `end`; `peak` is the largest sample."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self._ended = machine.status_bytes("RssAnon"), threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, machine.status_bytes("RssAnon"))
            time.sleep(0.002)

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self.peak


def main() -> None:
    from paddlenlp.transformers import AutoModel

    from convert.folder import read_config
    from convert.mappings import paddle_config
    from paddle_internvl.estimation import Plan, estimate
    from paddle_internvl.kernels import library

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "configs/internvl2_5-1b.json")
    parser.add_argument("--tiles", type=int, default=7)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=1)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.checkpoint
        if folder.suffix == ".json":
            folder = random_checkpoint(Path(scratch) / "hf", read_config(folder))
        begun = machine.status_bytes("RssAnon")
        watch = Watch()
        watch.start()
        model = AutoModel.from_pretrained(str(folder))
        loaded = watch.peak
        allocated = allocator_peak(model, a.tiles, a.context, a.batch)
        kernels = not library.unavailable_reason()
        if kernels:
            library.functions().internvl_scratch_bytes.restype = ctypes.c_size_t
            allocated += library.functions().internvl_scratch_bytes()
        real = watch.end() - begun
    plan = Plan(batch=a.batch, context=a.context, tiles=a.tiles, device="cpu", kernels=kernels)
    estimated = estimate(paddle_config(read_config(a.checkpoint)), plan)
    figures = {
        "estimate": estimated.total,
        "allocated": allocated,
        "anonymous": real,
        "anonymous after loading": loaded - begun,
    }
    ratios = {f"{name} / estimate": round(figures[name] / estimated.total, 3) for name in ("allocated", "anonymous")}
    print(json.dumps({**figures, **ratios, "parts": asdict(estimated)}))


if __name__ == "__main__":
    main()
