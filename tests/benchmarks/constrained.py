"""Decoding speed of constrained streams beside free ones on the bundled checkpoint, and of masks at 151,936 tokens.

    python -m tests.benchmarks.constrained

A free and a constrained run take turns; the median of the ratios counts, so that another process on the machine slows
both.
"""

from __future__ import annotations

import statistics
import time

from paddlenlp.transformers import AutoModel

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.generation.config import GenerationConfig
from tests.random_checkpoints import TOKENIZER

STREAMS, TOKENS, ROUNDS = 8, 128, 9
RECORD = {"type": "object", "properties": {"name": {"type": "string", "minLength": 20}, "n": {"type": "integer"}},
          "required": ["name", "n"]}  # fmt: skip
FORMATS = {
    "JSON Schema": {"guided_json": {"type": "array", "minItems": 99, "items": RECORD}},
    "regular expression": {"guided_regex": "[a-z ]{600,900}"},
}


def seconds(engine: Engine, prompt, config: GenerationConfig) -> float:
    """Seconds in which 8 equal requests decode, prefill left out."""
    received = [0]

    def deliver(piece) -> None:
        received[0] += len(piece.tokens)

    for _ in range(STREAMS):
        engine.add(engine.request(prompt, config), deliver)
    while received[0] < STREAMS:
        engine.step()
    start, before = time.perf_counter(), received[0]
    while not engine.idle:
        engine.step()
    assert received[0] - before > STREAMS * (TOKENS - 10), "an answer ended early"
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio of each format."""
    model = AutoModel.from_pretrained(str(TOKENIZER))
    prompt = build_prompt(model, model.tokenizer, [{"role": "user", "content": "List the objects."}])
    engine = Engine(model, model.tokenizer, EngineConfig(max_batch_size=STREAMS, cache_tokens=8192))
    free = GenerationConfig(max_new_tokens=TOKENS, ignore_eos=True)
    for name, settings in FORMATS.items():
        config = GenerationConfig(max_new_tokens=TOKENS, **settings)
        pairs = [(seconds(engine, prompt, free), seconds(engine, prompt, config)) for _ in range(ROUNDS)][1:]
        ratio = statistics.median(a / b for a, b in pairs)
        rates = [STREAMS * TOKENS / statistics.median(column) for column in zip(*pairs)]
        print(f"{name}: free {rates[0]:.0f} tokens/s, constrained {rates[1]:.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
