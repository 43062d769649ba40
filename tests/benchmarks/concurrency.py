"""The engine under concurrent requests, on the bundled checkpoint.

    python -m tests.benchmarks.concurrency [--rounds 5] [--json FILE]

Two ratios, each measured in one run, medians over rounds: tokens per second of 8 streams together against the same
requests one after another (with equal text); and the time to the first token of a short question without a picture
during vision and prefill of another request with a 12-tile picture, against that of the same question alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path

from paddle_internvl import runtime, startup

runtime.set_cpu_threads()
startup.import_paddle()

import numpy as np
from paddlenlp.transformers import AutoModel
from PIL import Image

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.generation.config import GenerationConfig

CHECKPOINT = Path(__file__).parents[2] / "demo/checkpoints/internvl-tiny"
STREAMS, TOKENS = 8, 128


async def answer(engine: EngineThread, prompt, config: GenerationConfig) -> tuple[str, float]:
    """The text, and seconds to the first piece."""
    begun, first, text = time.perf_counter(), None, ""
    async for piece in engine.stream(prompt, config):
        first = first or time.perf_counter() - begun
        text += piece.text
    return text, first


async def throughput(engine: EngineThread, prompts) -> tuple[float, float]:
    """Seconds of all prompts one after another, and together."""
    config = GenerationConfig(max_new_tokens=TOKENS, ignore_eos=True)
    begun = time.perf_counter()
    single = [(await answer(engine, prompt, config))[0] for prompt in prompts]
    middle = time.perf_counter()
    together = await asyncio.gather(*(answer(engine, prompt, config) for prompt in prompts))
    end = time.perf_counter()
    assert [text for text, _ in together] == single, "texts differ"
    return middle - begun, end - middle


async def first_tokens(engine: EngineThread, question, picture) -> tuple[float, float]:
    """Seconds to a question's first token alone, and while the picture is prefilled."""
    config = GenerationConfig(max_new_tokens=1)
    _, idle = await answer(engine, question, config)
    engine.engine.model.feature_cache.clear()
    large = asyncio.create_task(answer(engine, picture, config))
    await asyncio.sleep(0.02)  # until it is in the vision tower
    _, busy = await answer(engine, question, config)
    assert not large.done(), "the picture was done before the question"
    await large
    return idle, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = AutoModel.from_pretrained(str(CHECKPOINT))
    engine = EngineThread(engine_of(model, model.tokenizer, EngineConfig(enable_prefix_caching=False)))
    engine.start()
    prompts = [
        build_prompt(model, model.tokenizer, [{"role": "user", "content": f"Can you tell me a story? {i}"}])
        for i in range(STREAMS)
    ]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1344, 1792, 3), np.uint8))
    content = [{"type": "image", "image": noise, "max_num": 12}, {"type": "text", "text": "What is this?"}]
    picture = build_prompt(model, model.tokenizer, [{"role": "user", "content": content}])

    async def measure():
        await throughput(engine, prompts[:2])
        rates = [await throughput(engine, prompts) for _ in range(arguments.rounds)]
        firsts = [await first_tokens(engine, prompts[0], picture) for _ in range(4 * arguments.rounds)]
        return rates, firsts

    rates, firsts = asyncio.run(measure())
    engine.close()
    alone, together = (statistics.median(column) for column in zip(*rates))
    idle, busy = (statistics.median(column) for column in zip(*firsts))
    report = {
        "cores": os.cpu_count(),
        "tokens_per_second_one_after_another": STREAMS * TOKENS / alone,
        "tokens_per_second_together": STREAMS * TOKENS / together,
        "throughput_ratio": alone / together,
        "tiles": sum(len(tiles) for tiles in picture.pictures),
        "first_token_idle": idle,
        "first_token_beside_a_picture": busy,
        "first_token_ratio": busy / idle,
    }
    for name, value in report.items():
        print(f"{name:38} {value:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
