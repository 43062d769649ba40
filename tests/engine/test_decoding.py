"""Captured decode steps, played from a stand-in for CUDA graphs, against plain ones."""

import numpy as np
import paddle
import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.engine import decoding
from paddle_internvl.engine.decoding import CapturedDecoding, Decoding, decoding_of
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.settings import EngineConfig, engine_of
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.ops import dispatch
from tests.engine.recording import HostCopyError, RecordedGraph
from tests.engine.test_engine import LIMITS, Caller, alone, nothing_held, prompts, run
from tests.random_checkpoints import TOKENIZER

BLOCKS = 40


# What a card runs too: the library's kernels are no operations of Paddle that a graph records.
RECORDED = {"decoder_layer": "modules", "attention": "chunked", "rope": "plain", "swiglu": "fused"}


@pytest.fixture(autouse=True)
def no_grad():
    with paddle.no_grad(), dispatch.use_forms(**RECORDED):
        yield


def test_played_steps_are_the_plain_ones(models, case):
    """Batches that grow, shrink and lengthen: the same logits as without capture, from few captures."""
    decoder = models[case].language_model
    if decoder.model.rope.short_factor:
        pytest.skip("can't be captured")
    made = []
    plain = Decoding(decoder, BLOCKS)
    captured = CapturedDecoding(decoder, BLOCKS, lambda: made.append(RecordedGraph()) or made[-1])
    draw = np.random.default_rng(0)
    blocks = draw.permutation(BLOCKS).tolist()
    tables, lengths = [[blocks.pop()] for _ in range(5)], [0, 3, 9, 1, 14]
    for step in range(24):
        chosen = sorted(draw.choice(5, size=1 + step % 5, replace=False))
        for row in chosen:
            if lengths[row] == 16 * len(tables[row]):
                tables[row].append(blocks.pop())
        ids = paddle.to_tensor(draw.integers(3, 900, len(chosen)))
        about = [tables[row] for row in chosen], [lengths[row] for row in chosen]
        expected, found = plain(ids, *about), captured(ids, *about)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
        for row in chosen:
            lengths[row] += 1
    assert len(made) == 4  # of 1, 2, 4 and 8 rows


def test_an_engine_that_plays_its_steps(models, tokenizer, monkeypatch):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=12)
    asked = prompts(model, tokenizer, 6)
    expected = [alone(model, tokenizer, prompt, config) for prompt in asked]
    monkeypatch.setattr(
        "paddle_internvl.engine.engine.decoding_of",
        lambda model, blocks, cuda_graph: CapturedDecoding(model.language_model, blocks, RecordedGraph),
    )
    engine = Engine(model, tokenizer, LIMITS)
    callers = [Caller(engine, prompt, config) for prompt in asked]
    run(engine)
    assert [caller.ids for caller in callers] == expected and nothing_held(engine)


def test_another_rows_numbers_are_not_seen(models):
    """A short row beside a long one whose keys and values are not finite."""
    decoder = models["qwen2"].language_model
    plain = Decoding(decoder, 4)
    for memory in (*plain.cache.keys, *plain.cache.values):
        memory[: memory.shape[0] // 2] = float("nan")  # blocks 0 and 1
    logits = plain(paddle.to_tensor([5, 6]), [[0, 1], [2]], [20, 3])
    assert not np.isfinite(logits[0].numpy()).any() and np.isfinite(logits[1].numpy()).all()


def test_a_copy_to_the_host_within_a_capture_is_seen(models):
    graph, memory = RecordedGraph(), paddle.zeros([2])
    graph.capture_begin()
    with pytest.raises(HostCopyError, match="numpy within a capture"):
        (memory + 1).numpy()
    graph.capture_end()
    su = models["phi3_su"].language_model  # its factors are copied to the card at every step: why it is refused
    with pytest.raises(HostCopyError, match="to_tensor within a capture"):
        CapturedDecoding(su, 4, RecordedGraph)(paddle.to_tensor([5]), [[0]], [0])
    assert (memory + 1).tolist() == [1, 1]


def test_what_is_not_recorded_is_not_played():
    graph, memory = RecordedGraph(), paddle.zeros([2])
    graph.capture_begin()
    out = (memory + 1) * 2
    graph.capture_end()
    memory.set_value(np.array([3.0, 4.0], np.float32))
    assert out.tolist() == [2, 2]
    graph.replay()
    assert out.tolist() == [8, 10]


def test_a_capture_that_can_not_be_is_refused(models, tokenizer, capsys):
    model = models["qwen2"]
    with pytest.raises(ValueError, match="can't be captured: the model is not on a CUDA card; leave cuda_graph out"):
        engine_of(model, tokenizer, EngineConfig(cuda_graph=True, cache_tokens=64))
    assert type(decoding_of(model, 4, False)) is Decoding
    assert [decoding._power(n) for n in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 16]
    assert main(["serve", str(TOKENIZER), "--cuda-graph", "--server-port", "0"]) != 0
    assert "the model is not on a CUDA card" in capsys.readouterr().err
