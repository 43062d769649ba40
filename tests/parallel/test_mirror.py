"""Rank 0's calls on the other ranks: everything a model can do, caches that come and go, failures."""

import gc

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.paged_cache import PagedCache
from paddle_internvl.parallel import mirror
from paddle_internvl.parallel.mirror import Leader, follow
from tests.parallel.test_sharing import shared
from tests.random_checkpoints import random_checkpoint, tiny_config

SETTINGS = {"max_new_tokens": 6, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("mirror") / "hf", tiny_config("llama"))


def led(monkeypatch, folder, work):
    """`work(model)` on rank 0 while the other follows; its result, and what the other still knew at the end."""
    known: dict = {}
    real = mirror._parts

    def parts(network):
        found = real(network)
        if network.team.rank:
            known["objects"] = found
        return found

    monkeypatch.setattr(mirror, "_parts", parts)

    def run(model):
        if not model.team.leads:
            return follow(model, model.team)
        Leader(model, model.team)
        try:
            return work(model)
        finally:
            model.team.tell(None)

    return shared(monkeypatch, folder, 2, run)[0], known["objects"]


def test_everything_above_works_as_with_one(monkeypatch, folder):
    ids = paddle.to_tensor([[5, 6, 7, 8]])

    def work(model):
        conversations = [[{"role": "user", "content": text}] for text in ("Hello", "What is it? " * 9)]
        return (
            model.generate(input_ids=ids, **SETTINGS).tolist(),
            model.generate(input_ids=ids, **SETTINGS, num_beams=3).tolist(),
            [answer.token_ids for answer in model.batch_chat_messages(conversations, SETTINGS)],
        )

    expected = work(AutoModel.from_pretrained(str(folder)))
    found, _ = led(monkeypatch, folder, work)
    assert found == expected


def test_caches_go_when_rank_0_lets_them_go(monkeypatch, folder):
    ids = paddle.to_tensor([[5, 6, 7, 8]])

    def work(model):
        for _ in range(3):
            model.generate(input_ids=ids, **SETTINGS)
            gc.collect()
        model.get_input_embeddings()(ids)  # what is gone is told with the next call

    _, objects = led(monkeypatch, folder, work)
    assert [key for key in objects if isinstance(key, int)] == []


def test_an_engines_cache_is_cleared_on_every_rank(monkeypatch, folder):
    written = []

    def work(model):
        limits = EngineLimits(max_batch_size=2, session_len=None, cache_tokens=64)
        engine = Engine(model, model.tokenizer, limits)
        rows = engine._cache.rows([[0, 2]], [0], 20)
        model.language_model.model(paddle.ones([1, 20, 64]), paddle.arange(20).unsqueeze(0), None, rows)
        written.append(float(sum(memory.abs().sum() for memory in engine._cache.keys)))
        engine._cache.clear([0, 2])
        model.get_input_embeddings()(paddle.to_tensor([[5]]))
        return engine

    engine, objects = led(monkeypatch, folder, work)
    (theirs,) = [found for found in objects.values() if isinstance(found, PagedCache)]
    assert written[0] > 0 and len(theirs.keys) == len(engine._cache.keys)
    for memory in (*theirs.keys, *theirs.values, *engine._cache.keys, *engine._cache.values):
        assert not memory.any()


def test_after_a_failure_nothing_goes_on(monkeypatch, folder):
    def work(model):
        layers = model.language_model.model
        with pytest.raises(TypeError):
            layers.forward("no tensor")
        with pytest.raises(RuntimeError, match="out of step since an earlier failure"):
            model.generate(input_ids=paddle.to_tensor([[5]]), **SETTINGS)
        return True

    with pytest.raises(TypeError):  # the follower fails as rank 0 did, and ends
        led(monkeypatch, folder, work)


def test_a_shared_model_is_not_saved(monkeypatch, folder, tmp_path):
    def work(model):
        with pytest.raises(ValueError, match="can't be saved; load it in one to save it"):
            model.save_pretrained(str(tmp_path))
        assert np.isfinite(model.get_input_embeddings()(paddle.to_tensor([[3]])).numpy()).all()
        return list(tmp_path.iterdir())

    assert led(monkeypatch, folder, work)[0] == []
