"""The real peak of memory on a CPU beside what `paddle_internvl.estimation` says of it.

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
import re
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.random_checkpoints import ROOT, random_checkpoint


class Wordless:
    """A tokenizer's place: random weights of a real vocabulary say what the tests' tokenizer has no words for."""

    def __init__(self, image: int):
        self.image = image

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.image

    def decode(self, ids, **how) -> str:
        return ""


def run(model, tiles: int, context: int, batch: int) -> None:
    """Answers to `batch` prompts of `tiles` tiles that fill a context, as `chat` and `batch_chat` make them."""
    from paddle_internvl.chat.batch_generation import BatchGeneration
    from paddle_internvl.engine.request import Prompt
    from paddle_internvl.generation.config import GenerationConfig

    side, image = model.config.tile_side, model.img_context_token_id
    slots = [image] * (tiles * model.num_image_token)
    new = 4
    prompts = [
        Prompt(
            slots + [7] * (context - new - len(slots)),
            [np.full((tiles, 3, side, side), k, np.float32)] * (tiles > 0),
            None,
        )
        for k in range(batch)
    ]
    for _ in BatchGeneration(model, Wordless(image), prompts, GenerationConfig(max_new_tokens=new, ignore_eos=True)):
        pass


def allocator_peak(model, tiles: int, context: int, batch: int) -> int:
    """Bytes of the parameters, of the pixels, and at most at once of tensors that came and went."""
    from paddle.base import core

    from paddle_internvl.models.feature_cache import FeatureCache

    model.feature_cache = FeatureCache(0)
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    run(model, tiles, context, batch)
    came = core.host_memory_stat_peak_value("Allocated", 0) - before
    held = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer is not None)]
    pixels = batch * tiles * 3 * model.config.tile_side**2 * 4
    return sum(tensor.size * tensor.element_size() for tensor in held) + pixels + came


def anonymous() -> int:
    """This process's anonymous memory in bytes: pages of mapped files do not count."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


class Watch(threading.Thread):
    """Samples `anonymous` until it is told to end; `peak` is the most it saw."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self._ended = anonymous(), threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, anonymous())
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
        begun = anonymous()
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
    said = estimate(paddle_config(read_config(a.checkpoint)), plan)
    figures = {
        "estimate": said.total,
        "allocated": allocated,
        "anonymous": real,
        "anonymous after loading": loaded - begun,
    }
    ratios = {f"{name} / estimate": round(figures[name] / said.total, 3) for name in ("allocated", "anonymous")}
    print(json.dumps({**figures, **ratios, "parts": asdict(said)}))


if __name__ == "__main__":
    main()
