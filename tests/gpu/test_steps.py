"""Decode steps on a card: tokens read while the next step runs, and steps replayed from CUDA graphs.

Skipped where Paddle sees no card. On a CPU tests/engine has stand-ins for both.
"""

import paddle
import pytest

from paddle_internvl import runtime
from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.ops import transfers
from tests.engine.test_engine import Client, is_empty, run
from tests.random_checkpoints import TOKENIZER

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(runtime.cuda_capability() is None, reason="Paddle sees no CUDA card"),
]
SETTINGS = [
    GenerationConfig(max_new_tokens=40),
    GenerationConfig(max_new_tokens=30, do_sample=True, seed=3, temperature=1.3),
    GenerationConfig(max_new_tokens=25, repetition_penalty=1.3, no_repeat_ngram_size=3),
    GenerationConfig(max_new_tokens=20, log_probs=True, top_logprobs=2),
    GenerationConfig(max_new_tokens=1),
]


def answers(cuda_graph: bool) -> list[list[int]]:
    from paddlenlp.transformers import AutoModel

    model = AutoModel.from_pretrained(str(TOKENIZER), dtype="float32", device="gpu")  # no rounding to choose between
    engine = engine_of(model, model.tokenizer, EngineConfig(cache_tokens=4096, cuda_graph=cuda_graph))
    questions = [[{"role": "user", "content": "What is it? " * n}] for n in range(1, 6)]
    prompts = [build_prompt(model, model.tokenizer, question) for question in questions]
    clients = [Client(engine, prompt, config) for prompt, config in zip(prompts, SETTINGS)]
    run(engine)
    assert all(client.error is None for client in clients) and is_empty(engine)
    return [client.ids for client in clients]


def test_steps_ahead_and_replayed_give_the_same_tokens(monkeypatch):
    paddle.set_device("gpu")
    ahead, replayed = answers(False), answers(True)
    monkeypatch.setattr(transfers, "overlaps", lambda: False)
    in_turn = answers(False)
    assert ahead == in_turn and replayed == in_turn
