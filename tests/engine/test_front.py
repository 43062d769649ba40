"""The engine's thread under asyncio: streams of many tasks, cancellation, a full queue, draining, faults."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.front import EngineThread
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.request import (
    ContextOverflowError,
    EngineClosedError,
    Prompt,
    QueueFullError,
    RequestFailedError,
)
from paddle_internvl.generation.config import GenerationConfig
from tests.engine.test_engine import LIMITS, OOM, Fault, alone, nothing_held, prompts

ENDLESS = GenerationConfig(max_new_tokens=3000, ignore_eos=True)


@pytest.fixture
def start(models, tokenizer):
    """Starts engine threads, and closes them afterwards."""
    before, begun = set(threading.enumerate()), []

    def start(**changed) -> EngineThread:
        limits = EngineLimits(**{**LIMITS.__dict__, **changed})
        begun.append(EngineThread(Engine(models["qwen2"], tokenizer, limits)))
        begun[-1].start()
        return begun[-1]

    yield start
    for thread in begun:
        thread.close()
        assert nothing_held(thread.engine)
    assert set(threading.enumerate()) <= before


async def collect(front: EngineThread, prompt: Prompt, config: GenerationConfig) -> list:
    return [piece async for piece in front.stream(prompt, config)]


async def until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)


def test_many_tasks(start, models, tokenizer):
    front, config = start(), GenerationConfig(max_new_tokens=10)
    asked = prompts(models["qwen2"], tokenizer, 8)
    expected = [alone(models["qwen2"], tokenizer, prompt, config) for prompt in asked]

    async def all_of_them():
        return await asyncio.gather(*(collect(front, prompt, config) for prompt in asked))

    given = asyncio.run(all_of_them())
    assert [[token for piece in pieces for token in piece.tokens] for pieces in given] == expected
    assert all(pieces[-1].response.text == "".join(piece.text for piece in pieces) for pieces in given)
    stats = front.stats()
    assert (stats.finished, stats.waiting, stats.running, stats.prefilling, stats.blocks_used) == (8, 0, 0, 0, 0)
    assert front.healthy


def test_several_answers_to_one_prompt(start, models, tokenizer):
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)
    config = GenerationConfig(max_new_tokens=6, do_sample=True, seed=3, n=3)
    pieces = asyncio.run(collect(start(), prompt, config))
    whole = {piece.index: piece.response for piece in pieces if piece.response}
    assert sorted(whole) == [0, 1, 2] and len({response.token_ids for response in whole.values()}) == 3


@pytest.mark.parametrize("how", ["task", "stream"])
def test_who_leaves_is_no_longer_computed_for(start, models, tokenizer, how):
    front = start()
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)

    async def leave():
        if how == "task":
            task = asyncio.create_task(collect(front, prompt, ENDLESS))
            await until(lambda: front.stats().running)
            task.cancel()
        else:
            async with aclosing(front.stream(prompt, ENDLESS)) as pieces:
                await anext(pieces)
        await until(lambda: front.engine.idle)

    asyncio.run(leave())
    assert front.stats().cancelled == 1 and front.stats().blocks_used == 0


def test_a_loop_that_is_gone_cancels(start, models, tokenizer):
    front = start()
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)
    loop = asyncio.new_event_loop()
    pieces = front.stream(prompt, ENDLESS)
    loop.run_until_complete(anext(pieces))
    loop.close()
    asyncio.run(until(lambda: front.engine.idle))
    del pieces


def test_a_full_queue_is_said_at_once(start, models, tokenizer):
    front = start(max_batch_size=1, max_waiting=1)
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)

    async def crowd():
        tasks = [asyncio.create_task(collect(front, prompt, ENDLESS)) for _ in range(2)]
        await until(lambda: front.stats().running == 1 and front.stats().waiting == 1)
        with pytest.raises(QueueFullError, match="2 answers are asked for already"):
            await collect(front, prompt, ENDLESS)
        for task in tasks:
            task.cancel()
        await until(lambda: front.engine.idle)
        return await collect(front, prompt, GenerationConfig(max_new_tokens=2))

    assert asyncio.run(crowd())


def test_what_can_not_be_asked_is_said_at_once(start, models, tokenizer):
    front = start(session_len=30)
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)
    with pytest.raises(ContextOverflowError, match="the limit is 30"):
        asyncio.run(collect(front, prompt, GenerationConfig()))
    with pytest.raises(ValueError, match="bad word"):
        asyncio.run(collect(front, Prompt(prompt.ids[:5], [], prompt.stop), GenerationConfig(bad_words=("two words",))))


def test_draining_ends_what_runs_and_takes_nothing_new(start, models, tokenizer):
    front = start()
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)
    config = GenerationConfig(max_new_tokens=40, ignore_eos=True)

    async def drain():
        running = asyncio.create_task(collect(front, prompt, config))
        await until(lambda: front.stats().running)
        front.drain()
        with pytest.raises(EngineClosedError):
            await collect(front, prompt, config)
        await asyncio.to_thread(front.close, 30)
        return await running

    assert asyncio.run(drain())[-1].response.generate_token_len == 40
    assert not front.healthy


def test_closing_tells_those_who_wait(start, models, tokenizer):
    front = start()
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)

    async def close():
        running = asyncio.create_task(collect(front, prompt, ENDLESS))
        await until(lambda: front.stats().running)
        await asyncio.to_thread(front.close)
        with pytest.raises(EngineClosedError, match="shutting down"):
            await running

    asyncio.run(close())


def test_after_an_error_the_next_request_works(start, models, tokenizer, monkeypatch, caplog):
    front, config = start(), GenerationConfig(max_new_tokens=4)
    (prompt,) = prompts(models["qwen2"], tokenizer, 1)
    with monkeypatch.context() as patched:
        Fault(patched, models["qwen2"].language_model.model, "forward", lambda *a, **k: True, OOM)
        with pytest.raises(RequestFailedError, match="not enough memory") as raised:
            asyncio.run(collect(front, prompt, config))
        assert raised.value.out_of_memory and front.healthy
        for _ in range(7):
            with pytest.raises(RequestFailedError):
                asyncio.run(collect(front, prompt, config))
        assert not front.healthy  # until a request is answered again
    with monkeypatch.context() as patched:  # a fault of the engine's own, outside any one request
        Fault(patched, front.engine, "_admit", lambda: True, RuntimeError("a fault"))
        with pytest.raises(RequestFailedError, match="inside the engine"):
            asyncio.run(collect(front, prompt, config))
    assert "a fault" in caplog.text
    assert asyncio.run(collect(front, prompt, config)) and front.healthy
