"""The engine on random weights: whatever joins, leaves or fails meanwhile, a request is answered as if it were alone.

Held to `generate_ids`, which decodes one prompt on a cache of its own.
"""

import random
from dataclasses import replace

import numpy as np
import paddle
import pytest

from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.request import ContextOverflowError, Prompt, RequestFailedError
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.ops import transfers
from tests.random_checkpoints import random_pixels

LIMITS = EngineLimits(max_batch_size=4, session_len=None, cache_tokens=4096, prefill_chunk=24, vision_tiles=2)


@pytest.fixture(autouse=True, params=[False, True], ids=["step by step", "a step ahead"])
def ahead(request, monkeypatch):
    """Whether a step's tokens are read while the next one runs, as on a card."""
    monkeypatch.setattr(transfers, "overlaps", lambda: request.param)
    return request.param


def limits(**changed) -> EngineLimits:
    return EngineLimits(**{**LIMITS.__dict__, **changed})


def prompts(model, tokenizer, count: int, seed: int = 0) -> list[Prompt]:
    """Conversations of different lengths with 0 to 3 pictures of 1 or 2 tiles."""
    draw = random.Random(seed)
    found = []
    for i in range(count):
        pictures = [random_pixels(draw.randint(1, 2), model.config.tile_side, seed=7 * i + k) for k in range(i % 4)]
        words = " ".join(draw.choice(["red", "看", "shape", "x"]) for _ in range(draw.randint(1, 40)))
        prompt = build_prompt(model, tokenizer, [{"role": "user", "content": words}])
        n, context = model.num_image_token, tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        head = [context] * sum(len(p) * n for p in pictures)
        found.append(Prompt(prompt.ids[:2] + head + prompt.ids[2:], pictures, prompt.stop))
    return found


def alone(model, tokenizer, prompt: Prompt, config: GenerationConfig) -> list[int]:
    """Ids of one prompt, decoded by itself on a contiguous cache."""
    model.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    stop = tokenizer.convert_tokens_to_ids(prompt.stop)
    with paddle.no_grad():
        pixels = [paddle.to_tensor(p) for p in prompt.pictures]
        tokens = paddle.concat([model.extract_feature(p) for p in pixels]) if pixels else None
        embeds = model.embed(paddle.to_tensor([prompt.ids]), tokens)
    config = replace(config, eos_token_id=(stop,))
    ids, _ = generate_ids(model.language_model, embeds, None, config, pad_token_id=-2)
    return [i for i in ids[0].tolist() if i != -2]


class Caller:
    """Collects what a request is given."""

    def __init__(self, engine: Engine, prompt: Prompt, config: GenerationConfig, index: int = 0):
        self.pieces, self.error = [], None
        self.sequence = engine.add(engine.answer(prompt, config, index), self.take)

    def take(self, piece):
        if isinstance(piece, Exception):
            self.error = piece
        else:
            self.pieces.append(piece)

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.tokens]


def run(engine: Engine, steps: int = 10_000) -> None:
    while not engine.idle and steps:
        engine.step()
        steps -= 1
    assert engine.idle, "the engine does not come to an end"


def nothing_held(engine: Engine) -> bool:
    return engine.idle and engine.pool.used == engine.pool.reserved == 0


def test_joining_and_leaving_changes_nothing(models, tokenizer, case):
    model, config = models[case], GenerationConfig(max_new_tokens=12)
    asked = prompts(model, tokenizer, 9)
    expected = [alone(model, tokenizer, prompt, config) for prompt in asked]
    engine, draw, callers = Engine(model, tokenizer, LIMITS), random.Random(1), []
    waiting = list(asked)
    while waiting or not engine.idle:
        if waiting and draw.random() < 0.3:
            callers.append(Caller(engine, waiting.pop(0), config))
        engine.step()
    assert [caller.ids for caller in callers] == expected
    assert all(caller.pieces[-1].response.token_ids == tuple(caller.ids) for caller in callers)
    assert nothing_held(engine)


def test_every_request_has_its_own_settings(models, tokenizer):
    model = models["qwen2"]
    settings = [
        GenerationConfig(max_new_tokens=9),
        GenerationConfig(max_new_tokens=3, do_sample=True, seed=4, temperature=1.5),
        GenerationConfig(max_new_tokens=14, do_sample=True, seed=4, top_p=0.8, top_k=0),
        GenerationConfig(max_new_tokens=11, repetition_penalty=1.4, no_repeat_ngram_size=2),
        GenerationConfig(max_new_tokens=6, log_probs=True, top_logprobs=2),
    ]
    asked = prompts(model, tokenizer, len(settings), seed=3)
    expected = [BatchGeneration(model, tokenizer, [p], c) for p, c in zip(asked, settings)]
    for answers in expected:
        list(answers)
    engine = Engine(model, tokenizer, LIMITS)
    callers = [Caller(engine, prompt, config) for prompt, config in zip(asked, settings)]
    run(engine)
    for caller, answers in zip(callers, expected):
        (whole,) = answers.responses()
        given = caller.pieces[-1].response
        assert (given.text, given.token_ids, given.finish_reason) == (whole.text, whole.token_ids, whole.finish_reason)
        assert "".join(piece.text for piece in caller.pieces) == whole.text
    own, other = callers[4].pieces[-1].response.logprobs, expected[4].responses()[0].logprobs
    for a, b in zip(own, other):
        assert a == pytest.approx(b, abs=1e-4)
    assert [piece.log_probs for piece in callers[4].pieces] == [(entry,) for entry in own]


def test_answers_of_one_prompt_draw_differently_and_share_its_blocks(models, tokenizer):
    model, config = models["llama"], GenerationConfig(max_new_tokens=8, do_sample=True, seed=1, n=3)
    (prompt,) = prompts(model, tokenizer, 4)[3:]
    engine = Engine(model, tokenizer, LIMITS)
    callers = [Caller(engine, prompt, config, index) for index in range(3)]
    run(engine)
    assert len({tuple(caller.ids) for caller in callers}) == 3
    answers = BatchGeneration(model, tokenizer, [prompt], config)
    list(answers)
    (whole,) = answers.responses()
    assert [tuple(c.ids) for c in callers] == [r.token_ids for r in (whole, *whole.alternatives)]
    assert engine.counters.reused_tokens == 2 * ((len(prompt.ids) - 1) // 16 * 16)


def test_a_later_round_begins_where_the_earlier_one_ended(models, tokenizer, case):
    model, config = models[case], GenerationConfig(max_new_tokens=20)
    first = prompts(model, tokenizer, 3)[2]
    engine = Engine(model, tokenizer, LIMITS)
    caller = Caller(engine, first, config)
    run(engine)
    longer = Prompt(first.ids + caller.ids + [5, 6, 7, 8], first.pictures, first.stop)
    expected = alone(model, tokenizer, longer, config)
    tiles = engine.counters.vision_tiles
    again = Caller(engine, longer, config)
    run(engine)
    assert again.ids == expected
    stable = len(longer.ids) <= model.language_model.model.rope.stable_length
    known = (len(first.ids) + len(caller.ids) - 1) // 16 * 16
    assert engine.counters.reused_tokens == (known if stable else 0)
    assert engine.counters.vision_tiles == tiles, "the pictures were run again"
    other = Prompt(longer.ids, [p[::-1] + 0.5 for p in first.pictures], first.stop)
    expected = alone(model, tokenizer, other, config)
    before = engine.counters.reused_tokens
    changed = Caller(engine, other, config)
    run(engine)
    assert changed.ids == expected and engine.counters.reused_tokens - before < 16 + first.ids.index(
        model.img_context_token_id
    )


def test_equal_pictures_run_once(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=2)
    model.feature_cache.clear()
    prompt = prompts(model, tokenizer, 4)[3]
    engine = Engine(model, tokenizer, LIMITS)
    callers = [Caller(engine, prompt, config) for _ in range(3)]
    run(engine)
    assert engine.counters.vision_tiles == sum(map(len, prompt.pictures))
    assert callers[0].ids == callers[1].ids == callers[2].ids


def test_without_any_memory_of_pictures(models, tokenizer, monkeypatch):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=4)
    monkeypatch.setattr(model, "feature_cache", FeatureCache(0))
    asked = prompts(model, tokenizer, 4)
    engine = Engine(model, tokenizer, limits(reuse=False))
    callers = [Caller(engine, prompt, config) for prompt in (*asked, asked[3])]
    run(engine)
    assert [c.ids for c in callers] == [alone(model, tokenizer, p, config) for p in (*asked, asked[3])]


def test_room_for_few(models, tokenizer):
    """A cache that holds little more than one request at a time: others wait, none is lost."""
    model, config = models["dynamic_gqa"], GenerationConfig(max_new_tokens=10)
    asked = prompts(model, tokenizer, 6)
    need = max(len(prompt.ids) for prompt in asked) + 10
    engine = Engine(model, tokenizer, limits(cache_tokens=need + 20))
    callers = [Caller(engine, prompt, config) for prompt in asked]
    run(engine)
    assert [c.ids for c in callers] == [alone(model, tokenizer, p, config) for p in asked]
    with pytest.raises(ContextOverflowError, match="are more than the KV cache holds"):
        engine.answer(Prompt([1] * (need + 60), [], asked[0].stop), config)
    assert nothing_held(engine)


def test_a_cancelled_request_is_gone_after_one_step(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=500, ignore_eos=True)
    asked = prompts(model, tokenizer, 7)
    engine = Engine(model, tokenizer, limits(max_batch_size=5))
    callers = [Caller(engine, prompt, config) for prompt in asked]
    for _ in range(4):  # now some are decoded, some prefilled, some seen, some wait
        engine.step()
    assert len({caller.sequence.stage for caller in callers}) >= 3
    kept = callers.pop(0)
    for caller in callers:
        engine.cancel(caller.sequence)
    given = [len(caller.pieces) for caller in callers]
    engine.step()
    assert [sequence.answer for sequence in engine.active] == [kept.sequence.answer] and not engine.waiting
    assert [len(caller.pieces) for caller in callers] == given
    assert engine.counters.cancelled == len(callers)
    engine.cancel(kept.sequence)
    engine.step()
    assert nothing_held(engine)


class Fault:
    """Makes a method fail whenever `bad` says so of its arguments."""

    def __init__(self, monkeypatch, owner, name: str, bad, error: Exception):
        original = getattr(owner, name)

        def faulty(*args, **kwargs):
            if bad(*args, **kwargs):
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, faulty)


OOM = RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")


@pytest.mark.parametrize("error", [OOM, RuntimeError("a kernel failed"), MemoryError()], ids=["card", "kernel", "host"])
@pytest.mark.parametrize("where", ["vision", "prefill", "decode"])
def test_what_goes_wrong_costs_one_request(models, tokenizer, monkeypatch, where, error):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=8, ignore_eos=True)
    asked = prompts(model, tokenizer, 4, seed=5)
    expected = [alone(model, tokenizer, prompt, config) for prompt in asked]
    model.feature_cache.clear()
    engine = Engine(model, tokenizer, LIMITS)
    callers = [Caller(engine, prompt, config) for prompt in asked]
    victim = callers[3]
    decoder = model.language_model
    if where == "vision":
        own = {tile.tobytes() for picture in asked[3].pictures for tile in picture}
        Fault(monkeypatch, model, "feature_steps", lambda x: any(t.tobytes() in own for t in x.numpy()), error)
    elif where == "prefill":
        long = len(asked[3].ids)
        Fault(monkeypatch, decoder.model, "forward", lambda *a, length=0, **_: length == long, error)
    else:  # fails whenever the victim is in the batch, with its third token as last
        third = expected[3][2]

        def bad(input_ids=None, position_ids=None, **_):
            at = position_ids[:, 0].tolist()
            return [third, len(asked[3].ids) + 2] in [list(x) for x in zip(input_ids[:, 0].tolist(), at)]

        Fault(monkeypatch, decoder, "forward", bad, error)
    run(engine)
    assert [caller.ids for caller in callers[:3]] == expected[:3]
    assert isinstance(victim.error, RequestFailedError) and victim.error.__cause__ is error
    assert victim.error.out_of_memory == (error is OOM or isinstance(error, MemoryError))
    assert all(caller.error is None for caller in callers[:3]) and engine.counters.failed == 1
    assert nothing_held(engine)
    monkeypatch.undo()
    again = Caller(engine, asked[3], config)
    run(engine)
    assert again.ids == expected[3]


def test_numbers_that_are_not_finite_spoil_nobody_else(models, tokenizer, monkeypatch):
    model, config = models["llama"], GenerationConfig(max_new_tokens=6, ignore_eos=True)
    asked = prompts(model, tokenizer, 4)
    expected = [alone(model, tokenizer, prompt, config) for prompt in asked]
    engine = Engine(model, tokenizer, limits(cache_tokens=1024))
    broken = Prompt(asked[3].ids, [np.full_like(p, np.nan) for p in asked[3].pictures], asked[3].stop)
    callers = [Caller(engine, prompt, config) for prompt in (*asked[:3], broken)]
    run(engine)
    assert isinstance(callers[3].error.__cause__, FloatingPointError)
    callers += [Caller(engine, prompt, config) for prompt in asked]
    run(engine)
    assert [caller.ids for caller in callers[:3]] == expected[:3]
    assert [caller.ids for caller in callers[4:]] == expected


def test_a_short_prompt_passes_a_long_one(models, tokenizer):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=1)
    (short,) = prompts(model, tokenizer, 1)
    long = Prompt(short.ids[:2] + [40] * 400 + short.ids[2:], [], short.stop)
    engine = Engine(model, tokenizer, limits(reuse=False))
    slow = Caller(engine, long, config)
    engine.step()
    quick = Caller(engine, short, config)
    for _ in range(8):
        engine.step()
    assert quick.pieces and not slow.pieces
    # but no stream of short prompts keeps the long one waiting for ever
    for _ in range(200):
        if slow.pieces:
            break
        Caller(engine, short, config)
        engine.step()
    assert slow.pieces


def test_limits_are_checked():
    with pytest.raises(ValueError, match="prefill_chunk=0 is not above 0"):
        limits(prefill_chunk=0)


def test_steps_are_launched_before_those_before_are_read(models, tokenizer, ahead, monkeypatch):
    model, config = models["qwen2"], GenerationConfig(max_new_tokens=4, ignore_eos=True)
    (prompt,) = prompts(model, tokenizer, 1)
    events, take, forward = [], Caller.take, type(model.language_model).forward
    monkeypatch.setattr(Caller, "take", lambda *a: events.append("told") or take(*a))
    monkeypatch.setattr(
        type(model.language_model), "forward", lambda *a, **k: events.append("launched") or forward(*a, **k)
    )
    engine = Engine(model, tokenizer, limits(prefill_chunk=256))
    caller = Caller(engine, prompt, config)
    run(engine)
    in_turn, pair = ["told", *["launched", "told"] * 3], ["launched", "told"]
    assert events == ([*pair * 3, "told"] if ahead else in_turn)
    assert len(caller.ids) == 4 and not engine._launched


def test_what_is_launched_for_nothing_is_given_to_nobody(models, tokenizer, ahead):
    """Some end by an end token, which is only known when another was launched; their blocks go to others at once."""
    model = models["llama"]
    asked = prompts(model, tokenizer, 8, seed=2)
    free = [alone(model, tokenizer, prompt, GenerationConfig(max_new_tokens=24, ignore_eos=True)) for prompt in asked]
    ends = [GenerationConfig(max_new_tokens=24, eos_token_id=(ids[3 + i],)) for i, ids in enumerate(free)]
    need = max(len(prompt.ids) for prompt in asked) + 24
    engine = Engine(model, tokenizer, limits(cache_tokens=2 * need + 32))
    callers = [Caller(engine, prompt, config) for prompt, config in zip(asked, ends)]
    run(engine)
    assert [c.ids for c in callers] == [alone_ending(free[i], ends[i].eos_token_id[0]) for i in range(8)]
    assert all(c.pieces[-1].response.finish_reason == "stop" for c in callers) and nothing_held(engine)


def alone_ending(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1]
