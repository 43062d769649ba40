"""Decode steps replayed from a stand-in for CUDA graphs, against steps that run as they come."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.cli.main import main
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.decode import CudaGraphDecodeRunner, DecodeRunner, graph_factory
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.engine.model_runner import ModelRunner
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.ops import dispatch, rope
from tests.engine.recording import HostCopyError, RecordedGraph
from tests.engine.test_engine import CONFIG, Client, is_empty, make_prompts, reference_ids, run
from tests.families import SCHEDULED
from tests.random_checkpoints import TOKENIZER

BLOCKS = 40


# A card runs these too: the kernels of our library are no operations of Paddle that a graph records.
RECORDED = {"attention": "blockwise", "rms_norm": "reference", "rope": "reference", "swiglu": "fused",
            "experts": "static"}  # fmt: skip


@pytest.fixture(scope="module")
def models(hf_folders):
    """case -> a model that is not prepared, since preparation makes its layers native."""
    return {case: AutoModel.from_pretrained(str(folder), trainable=True) for case, folder in hf_folders.items()}


@pytest.fixture(autouse=True)
def no_grad(monkeypatch):
    monkeypatch.setattr(rope, "keeps_frequencies", lambda _: False)  # as on a card
    with paddle.no_grad(), dispatch.force(**RECORDED):
        yield


@pytest.mark.parametrize("case", [*SCHEDULED, "qwen3_moe"])
def test_replayed_steps_equal_eager_ones(models, case):
    """Batches that grow, shrink and lengthen: the same logits as without capture, from few captures."""
    decoder = models[case].language_model
    if decoder.model.rope.short_factor:
        pytest.skip("can't be captured")
    graphs = []
    eager = DecodeRunner(decoder, BLOCKS)
    captured = CudaGraphDecodeRunner(decoder, BLOCKS, lambda: graphs.append(RecordedGraph()) or graphs[-1])
    draw = np.random.default_rng(0)
    blocks = draw.permutation(BLOCKS).tolist()
    tables, lengths = [[blocks.pop()] for _ in range(5)], [0, 3, 9, 1, 14]
    for step in range(24):
        rows = sorted(draw.choice(5, size=1 + step % 5, replace=False))
        for row in rows:
            if lengths[row] == BLOCK_SIZE * len(tables[row]):
                tables[row].append(blocks.pop())
        ids = paddle.to_tensor(draw.integers(3, 900, len(rows)))
        arguments = ids, [tables[row] for row in rows], [lengths[row] for row in rows]
        expected, found = eager(*arguments), captured(*arguments)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
        for row in rows:
            lengths[row] += 1
    assert len(graphs) == 4  # of batch size 1, 2, 4 and 8


def test_an_engine_with_replayed_steps(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=12)
    prompts = make_prompts(model, tokenizer, 6)
    expected = [reference_ids(model, tokenizer, prompt, config) for prompt in prompts]
    runner = ModelRunner(model, CONFIG.cache_tokens // BLOCK_SIZE, RecordedGraph)
    engine = Engine(model, tokenizer, CONFIG, runner)
    clients = [Client(engine, prompt, config) for prompt in prompts]
    run(engine)
    assert [client.ids for client in clients] == expected and is_empty(engine)


def test_nan_of_another_row_has_no_effect(models):
    """A short row beside a long one whose keys and values are not finite."""
    decoder = models["qwen2"].language_model
    runner = DecodeRunner(decoder, 4)
    for memory in (*runner.cache.keys, *runner.cache.values):
        memory[: memory.shape[0] // 2] = float("nan")  # blocks 0 and 1
    logits = runner(paddle.to_tensor([5, 6]), [[0, 1], [2]], [20, 3])
    assert not np.isfinite(logits[0].numpy()).any() and np.isfinite(logits[1].numpy()).all()


def test_a_host_copy_within_a_capture_is_an_error(models):
    graph, memory = RecordedGraph(), paddle.zeros([2])
    graph.capture_begin()
    with pytest.raises(HostCopyError, match="numpy within a capture"):
        (memory + 1).numpy()
    graph.capture_end()
    su = models["phi3_su"].language_model  # its factors are copied to the card at every step: why it is refused
    with pytest.raises(HostCopyError, match="to_tensor within a capture"):
        CudaGraphDecodeRunner(su, 4, RecordedGraph)(paddle.to_tensor([5]), [[0]], [0])
    assert (memory + 1).tolist() == [1, 1]


def test_the_stand_in_replays_on_new_inputs():
    graph, memory = RecordedGraph(), paddle.zeros([2])
    graph.capture_begin()
    out = (memory + 1) * 2
    graph.capture_end()
    memory.set_value(np.array([3.0, 4.0], np.float32))
    assert out.tolist() == [2, 2]
    graph.replay()
    assert out.tolist() == [8, 10]


def test_refused_captures(models, tokenizer, capsys):
    model = models["qwen2"]
    with pytest.raises(ValueError, match="can't be captured: the model is not on a CUDA card; leave cuda_graph out"):
        engine_of(model, tokenizer, EngineConfig(cuda_graph=True, cache_tokens=64))
    with pytest.raises(ValueError, match="not on a CUDA card"):
        graph_factory(model)
    assert main(["serve", str(TOKENIZER), "--cuda-graph", "--server-port", "0"]) != 0
    assert "the model is not on a CUDA card" in capsys.readouterr().err
