"""Constrained answers in the engine: beside free ones, and equal to free ones that already match."""

import json
import re
from dataclasses import replace

import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.engine import Engine
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints import token_masks
from paddle_internvl.generation.constraints.compiler import ConstraintError
from paddle_internvl.ops import transfers
from tests.engine.test_engine import CONFIG, Client, is_empty, make_prompts, reference_ids, run
from tests.random_checkpoints import TOKENIZER

SCHEMA = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square"]}, "sides": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["shape", "sides"],
    "additionalProperties": False,
}
CLOSING = {"guided_regex": r'\{"a":"[a-f]{1,9}"\}'}


@pytest.fixture(params=[False, True], ids=["step by step", "a step ahead"])
def ahead(request, monkeypatch):
    monkeypatch.setattr(token_masks, "_SMALL", 0)  # as of a member's vocabulary: masks come from threads
    monkeypatch.setattr(transfers, "overlaps", lambda: request.param)


def test_constrained_answers_beside_free_ones(models, tokenizer, ahead):
    model = models["qwen2"]
    free = GenerationConfig(max_new_tokens=14, ignore_eos=True)
    settings = [
        GenerationConfig(max_new_tokens=99, guided_json=SCHEMA),
        free,
        GenerationConfig(max_new_tokens=60, **CLOSING, do_sample=True, seed=3, temperature=2.0, log_probs=True),
        GenerationConfig(max_new_tokens=60, guided_choice=["circle", "two squares"], repetition_penalty=1.3),
        free,
        GenerationConfig(max_new_tokens=2, guided_json=SCHEMA),
    ]
    prompts = make_prompts(model, tokenizer, len(settings), seed=5)
    alone = []
    for prompt, config in zip(prompts, settings):
        engine = Engine(model, tokenizer, replace(CONFIG, prefill_chunk=9, enable_prefix_caching=False))
        alone.append(Client(engine, prompt, config))
        run(engine)
    engine = Engine(model, tokenizer, CONFIG)
    for _ in range(2):  # the second time with the prefix cache's blocks
        clients = [Client(engine, prompt, config) for prompt, config in zip(prompts, settings)]
        run(engine)
        assert [client.ids for client in clients] == [client.ids for client in alone] and is_empty(engine)
    for i in (1, 4):
        assert clients[i].ids == reference_ids(model, tokenizer, prompts[i], free)
    answers = [client.pieces[-1].response for client in clients]
    assert ["".join(piece.text for piece in client.pieces) for client in clients] == [a.text for a in answers]
    assert [a.finish_reason for a in answers] == ["stop", "length", "stop", "stop", "length", "length"]
    document = json.loads(answers[0].text)
    assert document["shape"] in ("circle", "square") and 0 <= document["sides"] <= 99
    assert re.fullmatch(CLOSING["guided_regex"], answers[2].text) and len(answers[2].logprobs) == len(clients[2].ids)
    assert answers[3].text in ("circle", "two squares")
    (brace,) = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("}"))
    odd = Client(engine, prompts[0], replace(settings[0], eos_token_id=(brace,), bad_words=(prompts[0].stop,)))
    run(engine)  # an end token of text stands behind the answer
    assert "".join(piece.text for piece in odd.pieces) == answers[0].text and odd.ids[-1] == brace


def test_an_answer_that_matches_already_is_kept(ahead):
    model = AutoModel.from_pretrained(str(TOKENIZER))
    prompt = build_prompt(model, model.tokenizer, [{"role": "user", "content": "Hello"}])
    engine = Engine(model, model.tokenizer, CONFIG)
    config = GenerationConfig(max_new_tokens=40)
    free = Client(engine, prompt, config)
    run(engine)
    text = free.pieces[-1].response.text
    formats = ({"guided_regex": r"(?s:.*)"}, {"guided_choice": ["another answer", text]})
    clients = [Client(engine, prompt, replace(config, **settings)) for settings in formats]
    run(engine)
    assert free.pieces[-1].response.finish_reason == "stop" and [c.ids for c in clients] == [free.ids] * 2
    assert [c.pieces[-1].response.text for c in clients] == [text] * 2


def test_an_answer_that_can_not_be_continued_ends_alone(models, tokenizer, ahead):
    model = models["qwen2"]
    prompts = make_prompts(model, tokenizer, 2)
    never = {i for i, text in tokenizer.bytes_of_ids().items() if b"b" in text}
    dead_end = GenerationConfig(guided_regex="ab", bad_token_ids=sorted(never))
    config = GenerationConfig(max_new_tokens=9, ignore_eos=True)
    engine = Engine(model, tokenizer, CONFIG)
    clients = [Client(engine, prompt, c) for prompt, c in zip(prompts, (dead_end, config))]
    run(engine)
    assert isinstance(clients[0].error, ConstraintError) and "no token that the model has" in str(clients[0].error)
    assert clients[1].ids == reference_ids(model, tokenizer, prompts[1], config)
    assert is_empty(engine) and engine.counters.failed_in_row == 0


def test_a_slow_mask_delays_its_own_answer_only(models, tokenizer, ahead):
    model = models["qwen2"]
    prompts = make_prompts(model, tokenizer, 2)
    engine = Engine(model, tokenizer, CONFIG)
    slow = Client(engine, prompts[0], GenerationConfig(max_new_tokens=60, **CLOSING))
    config = GenerationConfig(max_new_tokens=9, ignore_eos=True)
    quick = Client(engine, prompts[1], config)
    masks, late = slow.sequence.request.masks, iter([False, False, True] * 100)
    masks.is_ready = lambda: next(late)
    run(engine)
    assert quick.ids == reference_ids(model, tokenizer, prompts[1], config)
    alone = Client(engine, prompts[0], slow.sequence.request.config)
    run(engine)
    assert slow.ids == alone.ids and slow.pieces[-1].response.finish_reason == "stop"
