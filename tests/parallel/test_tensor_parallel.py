"""Command replay on ranks that are threads: answers on every rank, `run_rank`, refusals, failures."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl import run_rank
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.model_runner import ModelRunner
from paddle_internvl.engine.paged_kv_cache import PagedKVCache
from paddle_internvl.engine.request import RequestFailedError
from paddle_internvl.generation.config import GenerationConfig
from tests.engine.test_engine import Client, make_prompts, run
from tests.parallel.threads import run_sharded
from tests.random_checkpoints import random_checkpoint, random_pixels, tiny_config

SETTINGS = {"max_new_tokens": 6, "ignore_eos": True}
TEXTS = [[{"role": "user", "content": text}] for text in ("Hello", "What is it? " * 9)]
CONFIG = EngineConfig(max_batch_size=2, cache_tokens=512, prefill_chunk=32, vision_max_batch_size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("tensor_parallel") / "hf", tiny_config("llama"))


def answers(model) -> list:
    """Answers of every way to ask a model that runs its engine."""
    picture = random_pixels(2, model.config.tile_side)
    sampling = {**SETTINGS, "do_sample": True, "n": 2, "log_probs": True}
    sampled = model.batch_chat_messages(TEXTS, sampling)  # without a seed: rank 0 draws for all
    assert all(np.isfinite(list(entry.values())).all() for response in sampled for entry in response.logprobs)
    fixed = [
        [response.token_ids for response in model.batch_chat_messages(TEXTS, SETTINGS)],
        "".join(model.chat_stream(TEXTS[0], SETTINGS)),
        model.chat(model.tokenizer, picture, "<image>\nWhat is it?", SETTINGS),
        model.chat_messages(TEXTS[0], {**SETTINGS, "do_sample": True, "seed": 4}).text,
    ]
    return [fixed, [(response, response.alternatives) for response in sampled]]


def test_every_rank_gets_the_answers_of_one_process(monkeypatch, folder):
    expected, _ = answers(AutoModel.from_pretrained(str(folder)))
    ranks = run_sharded(monkeypatch, folder, 2, answers)
    assert [fixed for fixed, _ in ranks] == [expected] * 2
    assert ranks[0] == ranks[1]


def test_run_rank(monkeypatch, folder):
    """Only rank 0 runs the program, which may call the model as often as it likes."""
    expected, _ = answers(AutoModel.from_pretrained(str(folder)))
    ranks = run_sharded(monkeypatch, folder, 2, lambda model: run_rank(model, answers))
    assert ranks[0][0] == expected and ranks[1] is None
    assert run_rank(AutoModel.from_pretrained(str(folder)), lambda model: 5) == 5


def test_an_error_of_a_request_is_every_rank_s(monkeypatch, folder):
    """NaN in a prompt: the blocks are cleared, and the same error is raised on every rank."""
    cleared = []
    clear = PagedKVCache.clear
    monkeypatch.setattr(PagedKVCache, "clear", lambda *a: cleared.append(a[1]) or clear(*a))

    def work(model):
        picture = np.full_like(random_pixels(2, model.config.tile_side), np.nan)
        with pytest.raises(RequestFailedError, match="failed inside the engine"):
            model.chat(model.tokenizer, picture, "<image>\nWhat is it?", SETTINGS)
        return model.chat_messages(TEXTS[0], SETTINGS).text

    expected = AutoModel.from_pretrained(str(folder)).chat_messages(TEXTS[0], SETTINGS).text
    assert run_sharded(monkeypatch, folder, 2, work) == [expected] * 2
    assert len(cleared) == 2 and cleared[0] == cleared[1] != []


def test_a_stream_closed_early(monkeypatch, folder):
    def work(model):
        stream = model.chat_stream(TEXTS[0], {**SETTINGS, "max_new_tokens": 50})
        first = next(stream)
        stream.close()
        return first, model.chat_messages(TEXTS[0], SETTINGS).text

    one, other = run_sharded(monkeypatch, folder, 2, work)
    assert one == other


def test_answers_that_match_a_format_and_tool_calls(monkeypatch, folder):
    settings = {"max_new_tokens": 40, "guided_regex": r'\{"n": [0-9]{1,3}\}'}
    digit = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "note", "parameters": digit}}]

    def work(model):
        called = model.chat_messages(TEXTS[0], {"max_new_tokens": 60}, tools=tools, tool_choice="required")
        return model.chat_messages(TEXTS[0], settings).text, called.token_ids, called.tool_calls[0].arguments

    expected = work(AutoModel.from_pretrained(str(folder)))
    assert run_sharded(monkeypatch, folder, 2, work) == [expected] * 2
    assert 0 <= json.loads(expected[0])["n"] <= 999 and json.loads(expected[2])["n"] in (1, 2)


def test_a_forward_by_hand_is_refused(monkeypatch, folder):
    ids = paddle.to_tensor([[5, 6, 7, 8]])
    calls = {
        "forward": lambda model: model(input_ids=ids),
        "generate": lambda model: model.generate(input_ids=ids, **SETTINGS),
        "beams": lambda model: model.chat_messages(TEXTS[0], {**SETTINGS, "num_beams": 2}),
        "embedding": lambda model: model.get_input_embeddings()(ids),
        "head": lambda model: model.language_model.lm_head(paddle.ones([1, 64])),
    }

    def work(model):
        if not model.process_group.leads:
            return
        for call in calls.values():
            with pytest.raises(RuntimeError, match="runs only in its engine .*; load it in one process for generate"):
                call(model)

    run_sharded(monkeypatch, folder, 2, work)


def test_a_newer_engine_takes_the_place_of_an_older_one(monkeypatch, folder):
    def main(model):
        older, newer = (Engine(model, model.tokenizer, CONFIG) for _ in range(2))
        prompt, config = make_prompts(model, model.tokenizer, 1)[0], GenerationConfig(**SETTINGS)
        refused, served = Client(older, prompt, config), Client(newer, prompt, config)
        run(older)
        run(newer)
        assert "use one engine at a time" in str(refused.error.__cause__)
        return served.ids

    expected = main_alone(folder)
    assert run_sharded(monkeypatch, folder, 2, lambda model: run_rank(model, main))[0] == expected


def main_alone(folder) -> list[int]:
    model = AutoModel.from_pretrained(str(folder))
    engine = Engine(model, model.tokenizer, CONFIG)
    client = Client(engine, make_prompts(model, model.tokenizer, 1)[0], GenerationConfig(**SETTINGS))
    run(engine)
    return client.ids


def test_after_a_failure_no_rank_goes_on(monkeypatch, folder):
    def fail(*_arguments):
        raise ValueError("a kernel failed")

    monkeypatch.setattr(ModelRunner, "prefill", fail)

    def main(model):
        with pytest.raises(RequestFailedError) as raised:
            model.chat_messages(TEXTS[0], SETTINGS)
        assert str(raised.value.__cause__) == "a kernel failed"
        with pytest.raises(RuntimeError, match="out of step since an earlier failure"):
            model.chat_messages(TEXTS[0], SETTINGS)

    with pytest.raises(ValueError, match="a kernel failed"):  # the other rank fails as rank 0 did, and ends
        run_sharded(monkeypatch, folder, 2, lambda model: run_rank(model, main))


def test_ranks_that_make_different_calls(monkeypatch, folder):
    def work(model):
        if model.process_group.leads:
            return run_rank(model, lambda model: None)
        with pytest.raises(RuntimeError, match="make the same calls on every rank"):
            model.chat_messages(TEXTS[0], SETTINGS)

    run_sharded(monkeypatch, folder, 2, work)


def test_a_tensor_parallel_model_is_not_saved(monkeypatch, folder, tmp_path):
    def work(model):
        with pytest.raises(ValueError, match="can't be saved; load it in one process to save it"):
            model.save_pretrained(str(tmp_path))
        return list(tmp_path.iterdir())

    assert run_sharded(monkeypatch, folder, 2, work) == [[], []]
