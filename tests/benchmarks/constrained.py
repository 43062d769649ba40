"""Decoding speed of constrained streams beside free ones on the bundled checkpoint, and of masks at 151,936 tokens.

    python -m tests.benchmarks.constrained [--vocabulary qwen.tiktoken]

A free and a constrained run take turns; the median of the ratios counts, so that another process on the machine slows
both. The masks are those of random answers. The vocabulary is a file of tiktoken's; the package dashscope has Qwen's.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from paddlenlp.transformers import AutoModel

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import GrammarCompiler, token_mask
from paddle_internvl.generation.constraints.formats import pop_response_format
from tests.random_checkpoints import TOKENIZER

STREAMS, TOKENS, ROUNDS = 8, 128, 9
RECORD = {"type": "object", "properties": {"name": {"type": "string", "minLength": 20}, "n": {"type": "integer"}},
          "required": ["name", "n"]}  # fmt: skip
FORMATS = {
    "JSON Schema": {"guided_json": {"type": "array", "minItems": 99, "items": RECORD}},
    "regular expression": {"guided_regex": "[a-z ]{600,900}"},
}
VOCABULARY, STEPS = 151_936, 200
MASKS = {
    "JSON Schema": {"guided_json": {"type": "array", "minItems": 99, "items": RECORD}},
    "regular expression, Unicode": {"guided_regex": r"[\p{L}\p{N} ,.]+"},
    "regular expression, words": {"guided_regex": r"(\p{Lu}\p{Ll}+ )+"},
    "regular expression, up to 900 letters": {"guided_regex": "[a-z ]{600,900}"},
    "regular expression, 50 to 90 words": {"guided_regex": r"(\p{Lu}\p{Ll}+ ){50,90}"},
    "regular expression, up to 900 characters": {"guided_regex": r"[\p{L}\p{N} ,.]{600,900}"},
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


def compiler_of_file(file: str) -> GrammarCompiler:
    """The compiler of a vocabulary in a file of tiktoken's."""
    lines = [line.split() for line in Path(file).read_bytes().splitlines()]
    tokens = {int(rank): base64.b64decode(text) for text, rank in lines}
    end = len(tokens)
    tokenizer = SimpleNamespace(
        bytes_of_ids=lambda: tokens, added_tokens_decoder={end: "<|endoftext|>"}, all_special_ids=[end],
        eos_token_id=end, eos_token="<|endoftext|>", decode=lambda ids: b"".join(tokens[i] for i in ids).decode(),
    )  # fmt: skip
    return GrammarCompiler(tokenizer, VOCABULARY)


def masks(compiler: GrammarCompiler, settings: dict) -> Iterator[float]:
    """Seconds of the mask of every token of a random answer."""
    matcher = compiler.compile(pop_response_format(dict(settings))).matcher.deep_copy()
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        begun = time.perf_counter()
        mask = token_mask(matcher, compiler.vocabulary)
        yield time.perf_counter() - begun
        mask[compiler.vocabulary.end] = -np.inf
        if mask.max() < 0:
            return  # the answer has ended
        matcher.consume_token(int(draw.choice(np.flatnonzero(mask == 0))))


def main() -> None:
    """Print the ratio of each format, and the time of its masks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", metavar="FILE", help="tiktoken's file of Qwen: measure masks too")
    arguments = parser.parse_args()
    compiler = compiler_of_file(arguments.vocabulary) if arguments.vocabulary else None
    for name, settings in MASKS.items() if compiler else ():
        times = 1000 * np.array(list(masks(compiler, settings)))
        print(f"mask, {name}: mean {times.mean():.2f} ms, median {np.median(times):.2f}, first {times[0]:.2f}")
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
