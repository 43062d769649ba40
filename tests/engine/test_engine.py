"""The engine on random weights: whatever joins, leaves or fails meanwhile, a request is answered as if it were alone.

The reference is `generate_ids`, which decodes one prompt on a contiguous KV cache.
"""

import random
from dataclasses import replace

import numpy as np
import paddle
import pytest

from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.request import ContextOverflowError, Prompt, RequestFailedError
from paddle_internvl.engine.sequence import Stage
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.ops import transfers
from paddle_internvl.preprocess.pixels import normalized
from tests.random_checkpoints import random_pixels

CONFIG = EngineConfig(max_batch_size=4, cache_tokens=4096, prefill_chunk=24, vision_max_batch_size=2)


@pytest.fixture(autouse=True, params=[False, True], ids=["step by step", "a step ahead"])
def ahead(request, monkeypatch):
    """Whether a step's tokens are read while the next one runs, as on a card."""
    monkeypatch.setattr(transfers, "overlaps", lambda: request.param)
    return request.param


def make_prompts(model, tokenizer, count: int, seed: int = 0) -> list[Prompt]:
    """Conversations of different lengths with 0 to 3 pictures of 1 or 2 tiles."""
    draw = random.Random(seed)
    prompts = []
    for i in range(count):
        pictures = [random_pixels(draw.randint(1, 2), model.config.tile_side, seed=7 * i + k) for k in range(i % 4)]
        words = " ".join(draw.choice(["red", "看", "shape", "x"]) for _ in range(draw.randint(1, 40)))
        prompt = build_prompt(model, tokenizer, [{"role": "user", "content": words}])
        n, context = model.num_image_token, tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        head = [context] * sum(len(p) * n for p in pictures)
        prompts.append(Prompt(prompt.ids[:2] + head + prompt.ids[2:], pictures, prompt.stop))
    return prompts


def reference_ids(model, tokenizer, prompt: Prompt, config: GenerationConfig) -> list[int]:
    """Ids of one prompt, decoded alone on a contiguous KV cache."""
    model.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    stop = tokenizer.convert_tokens_to_ids(prompt.stop)
    with paddle.no_grad():
        pixels = [paddle.to_tensor(normalized(p)) for p in prompt.pictures]
        tokens = paddle.concat([model.extract_feature(p) for p in pixels]) if pixels else None
        embeds = model.embed(paddle.to_tensor([prompt.ids]), tokens)
    config = replace(config, eos_token_id=(stop,))
    ids, _ = generate_ids(model.language_model, embeds, None, config, pad_token_id=-2)
    return [i for i in ids[0].tolist() if i != -2]


class Client:
    """Submits a request and collects its pieces."""

    def __init__(self, engine: Engine, prompt: Prompt, config: GenerationConfig, index: int = 0):
        self.pieces, self.error = [], None
        self.sequence = engine.add(engine.request(prompt, config, index), self.receive)

    def receive(self, piece):
        if isinstance(piece, Exception):
            self.error = piece
        else:
            self.pieces.append(piece)

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.tokens]


def run(engine: Engine, max_steps: int = 10_000) -> None:
    while not engine.idle and max_steps:
        engine.step()
        max_steps -= 1
    assert engine.idle, "requests are left after so many steps"


def is_empty(engine: Engine) -> bool:
    return engine.idle and engine.pool.used == engine.pool.reserved == 0


def test_requests_that_join_and_leave(models, tokenizer, case):
    model, config = models[case], GenerationConfig(max_new_tokens=12)
    prompts = make_prompts(model, tokenizer, 9)
    expected = [reference_ids(model, tokenizer, prompt, config) for prompt in prompts]
    engine, draw, clients = Engine(model, tokenizer, CONFIG), random.Random(1), []
    waiting = list(prompts)
    while waiting or not engine.idle:
        if waiting and draw.random() < 0.3:
            clients.append(Client(engine, waiting.pop(0), config))
        engine.step()
    assert [client.ids for client in clients] == expected
    assert all(client.pieces[-1].response.token_ids == tuple(client.ids) for client in clients)
    assert is_empty(engine)


def test_settings_of_each_request(models, tokenizer):
    model = models["qwen2"]
    settings = [
        GenerationConfig(max_new_tokens=9),
        GenerationConfig(max_new_tokens=3, do_sample=True, seed=4, temperature=1.5),
        GenerationConfig(max_new_tokens=14, do_sample=True, seed=4, top_p=0.8, top_k=0),
        GenerationConfig(max_new_tokens=11, repetition_penalty=1.4, no_repeat_ngram_size=2),
        GenerationConfig(max_new_tokens=6, log_probs=True, top_logprobs=2),
    ]
    prompts = make_prompts(model, tokenizer, len(settings), seed=3)
    expected = [BatchGeneration(model, tokenizer, [p], c) for p, c in zip(prompts, settings)]
    for generation in expected:
        list(generation)
    engine = Engine(model, tokenizer, CONFIG)
    clients = [Client(engine, prompt, config) for prompt, config in zip(prompts, settings)]
    run(engine)
    for client, generation in zip(clients, expected):
        (alone,) = generation.responses()
        response = client.pieces[-1].response
        assert (response.text, response.token_ids, response.finish_reason) == (
            alone.text, alone.token_ids, alone.finish_reason
        )  # fmt: skip
        assert "".join(piece.text for piece in client.pieces) == alone.text
    log_probs, alone = clients[4].pieces[-1].response.logprobs, expected[4].responses()[0].logprobs
    for a, b in zip(log_probs, alone):
        assert a == pytest.approx(b, abs=1e-4)
    assert [piece.log_probs for piece in clients[4].pieces] == [(entry,) for entry in log_probs]


def test_n_answers_of_a_prompt_differ_and_share_its_blocks(models, tokenizer):
    model, config = models["llama"], GenerationConfig(max_new_tokens=8, do_sample=True, seed=1, n=3)
    (prompt,) = make_prompts(model, tokenizer, 4)[3:]
    engine = Engine(model, tokenizer, CONFIG)
    clients = [Client(engine, prompt, config, index) for index in range(3)]
    run(engine)
    assert len({tuple(client.ids) for client in clients}) == 3
    generation = BatchGeneration(model, tokenizer, [prompt], config)
    list(generation)
    (best,) = generation.responses()
    assert [tuple(c.ids) for c in clients] == [r.token_ids for r in (best, *best.alternatives)]
    assert engine.counters.reused_tokens == 2 * ((len(prompt.ids) - 1) // 16 * 16)


def test_a_later_round_reuses_the_prefix(models, tokenizer, case):
    model, config = models[case], GenerationConfig(max_new_tokens=20)
    first = make_prompts(model, tokenizer, 3)[2]
    engine = Engine(model, tokenizer, CONFIG)
    client = Client(engine, first, config)
    run(engine)
    longer = Prompt(first.ids + client.ids + [5, 6, 7, 8], first.pictures, first.stop)
    expected = reference_ids(model, tokenizer, longer, config)
    tiles = engine.counters.vision_tiles
    again = Client(engine, longer, config)
    run(engine)
    assert again.ids == expected
    stable = len(longer.ids) <= model.language_model.model.rope.stable_length
    cached = (len(first.ids) + len(client.ids) - 1) // 16 * 16
    assert engine.counters.reused_tokens == (cached if stable else 0)
    assert engine.counters.vision_tiles == tiles, "the pictures were run again"
    other = Prompt(longer.ids, [p[::-1] + 0.5 for p in first.pictures], first.stop)
    expected = reference_ids(model, tokenizer, other, config)
    before = engine.counters.reused_tokens
    changed = Client(engine, other, config)
    run(engine)
    assert changed.ids == expected and engine.counters.reused_tokens - before < 16 + first.ids.index(
        model.img_context_token_id
    )


def test_equal_pictures_run_once(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=2)
    model.feature_cache.clear()
    prompt = make_prompts(model, tokenizer, 4)[3]
    engine = Engine(model, tokenizer, CONFIG)
    clients = [Client(engine, prompt, config) for _ in range(3)]
    run(engine)
    assert engine.counters.vision_tiles == sum(map(len, prompt.pictures))
    assert clients[0].ids == clients[1].ids == clients[2].ids


def test_without_a_feature_cache(models, tokenizer, monkeypatch):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=4)
    monkeypatch.setattr(model, "feature_cache", FeatureCache(0))
    prompts = make_prompts(model, tokenizer, 4)
    engine = Engine(model, tokenizer, replace(CONFIG, enable_prefix_caching=False))
    clients = [Client(engine, prompt, config) for prompt in (*prompts, prompts[3])]
    run(engine)
    assert [c.ids for c in clients] == [reference_ids(model, tokenizer, p, config) for p in (*prompts, prompts[3])]


def test_a_kv_cache_for_one_request_at_a_time(models, tokenizer):
    """The others wait, none is lost; what can't fit is refused."""
    model, config = models["dynamic_gqa"], GenerationConfig(max_new_tokens=10)
    prompts = make_prompts(model, tokenizer, 6)
    need = max(len(prompt.ids) for prompt in prompts) + 10
    engine = Engine(model, tokenizer, replace(CONFIG, cache_tokens=need + 20))
    clients = [Client(engine, prompt, config) for prompt in prompts]
    run(engine)
    assert [c.ids for c in clients] == [reference_ids(model, tokenizer, p, config) for p in prompts]
    with pytest.raises(ContextOverflowError, match="are more than the KV cache holds"):
        engine.request(Prompt([1] * (need + 60), [], prompts[0].stop), config)
    assert is_empty(engine)


def test_the_kv_cache_limits_the_answer(models, tokenizer):
    """A small cache does not refuse a request with the default max_new_tokens: its answer ends where the cache does."""
    model = models["llama"]
    (prompt,) = make_prompts(model, tokenizer, 1)
    engine = Engine(model, tokenizer, replace(CONFIG, cache_tokens=160))
    client = Client(engine, prompt, GenerationConfig(ignore_eos=True))
    run(engine)
    response = client.pieces[-1].response
    assert response.finish_reason == "length" and response.generate_token_len == 160 - len(prompt.ids)
    assert is_empty(engine)


def test_admission_is_first_come_first_served(models, tokenizer):
    """A large request at the head of the queue is not overtaken, though a small one behind it would fit."""
    model, config = models["llama"], GenerationConfig(max_new_tokens=1)
    (small,) = make_prompts(model, tokenizer, 1)
    engine = Engine(model, tokenizer, replace(CONFIG, cache_tokens=320, enable_prefix_caching=False))
    running = Client(engine, small, GenerationConfig(max_new_tokens=60, ignore_eos=True))
    engine.step()
    large = Client(engine, Prompt([40] * 220, [], small.stop), config)
    late = Client(engine, small, config)
    while not running.pieces or running.pieces[-1].response is None:
        assert large.sequence.stage is late.sequence.stage is Stage.WAITING
        engine.step()
    run(engine)
    assert large.pieces and late.pieces


def test_a_cancelled_request_is_gone_after_one_step(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=500, ignore_eos=True)
    prompts = make_prompts(model, tokenizer, 7)
    engine = Engine(model, tokenizer, replace(CONFIG, max_batch_size=5))
    clients = [Client(engine, prompt, config) for prompt in prompts]
    for _ in range(4):  # until some are in decode, prefill and vision, and some wait
        engine.step()
    assert len({client.sequence.stage for client in clients}) >= 3
    kept = clients.pop(0)
    for client in clients:
        engine.cancel(client.sequence)
    delivered = [len(client.pieces) for client in clients]
    engine.step()
    assert engine.scheduler.sequences == [kept.sequence]
    assert [len(client.pieces) for client in clients] == delivered
    assert engine.counters.cancelled == len(clients)
    engine.cancel(kept.sequence)
    engine.step()
    assert is_empty(engine)


def inject_fault(monkeypatch, owner, name: str, is_bad, error: Exception) -> None:
    """Let a method of `owner` raise `error` whenever `is_bad` is true of its arguments."""
    original = getattr(owner, name)

    def faulty(*args, **kwargs):
        if is_bad(*args, **kwargs):
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, faulty)


OOM = RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")


@pytest.mark.parametrize("error", [OOM, RuntimeError("a kernel failed"), MemoryError()], ids=["card", "kernel", "host"])
@pytest.mark.parametrize("stage", ["vision", "prefill", "decode"])
def test_a_fault_costs_one_request(models, tokenizer, monkeypatch, stage, error):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=8, ignore_eos=True)
    prompts = make_prompts(model, tokenizer, 4, seed=5)
    expected = [reference_ids(model, tokenizer, prompt, config) for prompt in prompts]
    model.feature_cache.clear()
    engine = Engine(model, tokenizer, CONFIG)
    victim = prompts[3]
    if stage == "vision":
        tiles = {tile.tobytes() for picture in victim.pictures for tile in picture}
        is_bad = lambda x: any(t.tobytes() in tiles for t in x.numpy())  # noqa: E731
        inject_fault(monkeypatch, model, "feature_steps", is_bad, error)
    elif stage == "prefill":
        is_bad = lambda embeds, blocks, start, length: length == len(victim.ids)  # noqa: E731
        inject_fault(monkeypatch, engine.runner, "prefill", is_bad, error)
    else:  # whenever the victim is in the batch with its third token as input

        def is_bad(ids, block_tables, lengths):
            return (expected[3][2], len(victim.ids) + 2) in zip(ids.tolist(), lengths)

        inject_fault(monkeypatch, engine.runner, "decode", is_bad, error)
    clients = [Client(engine, prompt, config) for prompt in prompts]
    run(engine)
    assert [client.ids for client in clients[:3]] == expected[:3]
    failed = clients[3].error
    assert isinstance(failed, RequestFailedError) and failed.__cause__ is error
    assert failed.out_of_memory == (error is OOM or isinstance(error, MemoryError))
    assert all(client.error is None for client in clients[:3]) and engine.counters.failed == 1
    assert is_empty(engine)
    monkeypatch.undo()
    again = Client(engine, victim, config)
    run(engine)
    assert again.ids == expected[3]


def test_uint8_tiles_give_the_answer_of_normalised_ones(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=6, ignore_eos=True)
    prompt = make_prompts(model, tokenizer, 4)[3]
    draw = np.random.default_rng(1)
    levels = [draw.integers(0, 256, tiles.shape, np.uint8) for tiles in prompt.pictures]
    prompts = [Prompt(prompt.ids, p, prompt.stop) for p in (levels, list(map(normalized, levels)))]
    engine = Engine(model, tokenizer, CONFIG)
    clients = [Client(engine, prompt, config) for prompt in prompts]
    run(engine)
    assert clients[0].ids == clients[1].ids == reference_ids(model, tokenizer, prompts[1], config)


def test_nan_stays_in_its_request(models, tokenizer):
    model, config = models["llama"], GenerationConfig(max_new_tokens=6, ignore_eos=True)
    prompts = make_prompts(model, tokenizer, 4)
    expected = [reference_ids(model, tokenizer, prompt, config) for prompt in prompts]
    engine = Engine(model, tokenizer, replace(CONFIG, cache_tokens=1024))
    broken = Prompt(prompts[3].ids, [np.full_like(p, np.nan) for p in prompts[3].pictures], prompts[3].stop)
    clients = [Client(engine, prompt, config) for prompt in (*prompts[:3], broken)]
    run(engine)
    assert isinstance(clients[3].error.__cause__, FloatingPointError)
    clients += [Client(engine, prompt, config) for prompt in prompts]
    run(engine)
    assert [client.ids for client in clients[:3]] == expected[:3]
    assert [client.ids for client in clients[4:]] == expected


def test_shortest_prefill_first_with_ageing(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=1)
    (short,) = make_prompts(model, tokenizer, 1)
    long = Prompt(short.ids[:2] + [40] * 400 + short.ids[2:], [], short.stop)
    engine = Engine(model, tokenizer, replace(CONFIG, enable_prefix_caching=False))
    slow = Client(engine, long, config)
    engine.step()
    quick = Client(engine, short, config)
    for _ in range(8):
        engine.step()
    assert quick.pieces and not slow.pieces
    for _ in range(200):  # a stream of short prompts does not starve the long one
        if slow.pieces:
            break
        Client(engine, short, config)
        engine.step()
    assert slow.pieces


def test_config_is_checked():
    with pytest.raises(ValueError, match="prefill_chunk=0 is not above 0"):
        replace(CONFIG, prefill_chunk=0)


def test_a_step_is_launched_before_the_last_one_is_read(models, tokenizer, ahead, monkeypatch):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=4, ignore_eos=True)
    (prompt,) = make_prompts(model, tokenizer, 1)
    engine = Engine(model, tokenizer, replace(CONFIG, prefill_chunk=256))
    events, receive, decode = [], Client.receive, engine.runner.decode
    monkeypatch.setattr(Client, "receive", lambda *a: events.append("delivered") or receive(*a))
    monkeypatch.setattr(engine.runner, "decode", lambda *a: events.append("launched") or decode(*a))
    client = Client(engine, prompt, config)
    run(engine)
    in_turn, pair = ["delivered", *["launched", "delivered"] * 3], ["launched", "delivered"]
    assert events == ([*pair * 3, "delivered"] if ahead else in_turn)
    assert len(client.ids) == 4


def test_a_speculative_step_of_an_ended_sequence_is_dropped(models, tokenizer):
    """Some end with an end token, which is read when another step is in flight; their blocks are reused at once."""
    model = models["llama"]
    prompts = make_prompts(model, tokenizer, 8, seed=2)
    endless = GenerationConfig(max_new_tokens=24, ignore_eos=True)
    free = [reference_ids(model, tokenizer, prompt, endless) for prompt in prompts]
    ends = [ids[3 + i] for i, ids in enumerate(free)]
    need = max(len(prompt.ids) for prompt in prompts) + 24
    engine = Engine(model, tokenizer, replace(CONFIG, cache_tokens=2 * need + 32))
    configs = [GenerationConfig(max_new_tokens=24, eos_token_id=(end,)) for end in ends]
    clients = [Client(engine, prompt, config) for prompt, config in zip(prompts, configs)]
    run(engine)
    assert [c.ids for c in clients] == [ids[: ids.index(end) + 1] for ids, end in zip(free, ends)]
    assert all(c.pieces[-1].response.finish_reason == "stop" for c in clients) and is_empty(engine)
