"""The engine's thread: streams of many tasks and threads, cancellation, a full queue, draining, faults."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import replace

import pytest

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.request import (
    ContextOverflowError,
    EngineClosedError,
    Prompt,
    QueueFullError,
    RequestFailedError,
)
from paddle_internvl.generation.config import GenerationConfig
from tests.engine.test_engine import CONFIG, OOM, inject_fault, is_empty, make_prompts, reference_ids

ENDLESS = GenerationConfig(max_new_tokens=3000, ignore_eos=True)


@pytest.fixture
def start(models, tokenizer):
    """Starts engine threads, and closes them afterwards."""
    before, started = set(threading.enumerate()), []

    def start(**changed) -> EngineThread:
        started.append(EngineThread(Engine(models["qwen2"], tokenizer, replace(CONFIG, **changed))))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.close()
        assert is_empty(thread.engine)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def prompt(models, tokenizer) -> Prompt:
    return make_prompts(models["qwen2"], tokenizer, 1)[0]


async def collect(thread: EngineThread, prompt: Prompt, config: GenerationConfig) -> list:
    return [piece async for piece in thread.stream(prompt, config)]


async def wait_until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_many_tasks(start, models, tokenizer):
    thread, config = start(), GenerationConfig(max_new_tokens=10)
    prompts = make_prompts(models["qwen2"], tokenizer, 8)
    expected = [reference_ids(models["qwen2"], tokenizer, prompt, config) for prompt in prompts]

    async def collect_all():
        return await asyncio.gather(*(collect(thread, prompt, config) for prompt in prompts))

    streams = asyncio.run(collect_all())
    assert [[token for piece in pieces for token in piece.tokens] for pieces in streams] == expected
    assert all(pieces[-1].response.text == "".join(piece.text for piece in pieces) for pieces in streams)
    stats = thread.stats()
    assert (stats.finished, stats.waiting, stats.running, stats.prefilling, stats.blocks_used) == (8, 0, 0, 0, 0)
    assert thread.healthy


def test_many_threads(start, models, tokenizer):
    thread, config = start(), GenerationConfig(max_new_tokens=10)
    prompts = make_prompts(models["qwen2"], tokenizer, 9)
    expected = [reference_ids(models["qwen2"], tokenizer, prompt, config) for prompt in prompts]

    def answer(three: list[Prompt]) -> list[list[int]]:
        ids = [[] for _ in three]
        for number, piece in thread.generate([thread.engine.request(prompt, config) for prompt in three]):
            ids[number] += piece.tokens
        return ids

    with ThreadPoolExecutor(3) as pool:
        answers = pool.map(answer, [prompts[i : i + 3] for i in (0, 3, 6)])
        assert [ids for three in answers for ids in three] == expected


def test_several_answers_to_one_prompt(start, prompt):
    config = GenerationConfig(max_new_tokens=6, do_sample=True, seed=3, n=3)
    pieces = asyncio.run(collect(start(), prompt, config))
    whole = {piece.index: piece.response for piece in pieces if piece.response}
    assert sorted(whole) == [0, 1, 2] and len({response.token_ids for response in whole.values()}) == 3


@pytest.mark.parametrize("closed", ["task", "stream", "iterator"])
def test_a_closed_stream_cancels_its_request(start, prompt, closed):
    thread = start()

    async def leave():
        if closed == "task":
            task = asyncio.create_task(collect(thread, prompt, ENDLESS))
            await wait_until(lambda: thread.stats().running)
            task.cancel()
        elif closed == "stream":
            async with aclosing(thread.stream(prompt, ENDLESS)) as pieces:
                await anext(pieces)
        else:
            with closing(thread.generate([thread.engine.request(prompt, ENDLESS)])) as pieces:
                next(pieces)
        await wait_until(lambda: thread.stats().cancelled)

    asyncio.run(leave())
    assert thread.stats().cancelled == 1 and thread.stats().blocks_used == 0


def test_a_closed_event_loop_cancels_its_requests(start, prompt):
    thread = start()
    loop = asyncio.new_event_loop()
    pieces = thread.stream(prompt, ENDLESS)
    loop.run_until_complete(anext(pieces))
    loop.close()
    asyncio.run(wait_until(lambda: thread.stats().cancelled))
    del pieces


def test_a_full_queue(start, prompt):
    thread = start(max_batch_size=1, max_waiting=1)

    async def crowd():
        tasks = [asyncio.create_task(collect(thread, prompt, ENDLESS)) for _ in range(2)]
        await wait_until(lambda: thread.stats().running == 1 and thread.stats().waiting == 1)
        with pytest.raises(QueueFullError, match="2 requests are queued or running"):
            await collect(thread, prompt, ENDLESS)
        for task in tasks:
            task.cancel()
        await wait_until(lambda: thread.stats().cancelled == 2)
        return await collect(thread, prompt, GenerationConfig(max_new_tokens=2))

    assert asyncio.run(crowd())


def test_too_many_queued_tiles(start, models, tokenizer, monkeypatch):
    """Tiles are large: they are limited whatever the number of requests, but a single request may have more."""
    thread, config = start(max_waiting=64), GenerationConfig(max_new_tokens=2)
    prompt = make_prompts(models["qwen2"], tokenizer, 2)[1]
    tiles = sum(map(len, prompt.pictures))
    monkeypatch.setattr("paddle_internvl.engine.engine_thread._MAX_QUEUED_TILES", 2 * tiles - 1)
    monkeypatch.setattr(thread.engine, "step", lambda: None)  # the first request's tiles stay queued

    async def crowd():
        first = asyncio.create_task(collect(thread, prompt, config))
        await wait_until(lambda: thread.engine.scheduler.waiting)
        with pytest.raises(QueueFullError, match=f"{tiles} tiles of pictures are queued already"):
            await collect(thread, prompt, config)
        monkeypatch.undo()
        return await first

    assert asyncio.run(crowd())


def test_requests_are_validated_by_the_caller(start, prompt):
    thread = start(session_len=30)
    with pytest.raises(ContextOverflowError, match="the limit is 30"):
        asyncio.run(collect(thread, prompt, GenerationConfig()))
    with pytest.raises(ValueError, match="bad word"):
        short = Prompt(prompt.ids[:5], [], prompt.stop)
        asyncio.run(collect(thread, short, GenerationConfig(bad_words=("two words",))))


def test_draining_finishes_running_requests_and_refuses_new_ones(start, prompt):
    thread = start()
    config = GenerationConfig(max_new_tokens=40, ignore_eos=True)

    async def drain():
        running = asyncio.create_task(collect(thread, prompt, config))
        await wait_until(lambda: thread.stats().running)
        thread.drain()
        with pytest.raises(EngineClosedError):
            await collect(thread, prompt, config)
        await asyncio.to_thread(thread.close, 300)
        return await running

    assert asyncio.run(drain())[-1].response.generate_token_len == 40
    assert not thread.healthy


def test_closing_ends_running_requests_with_an_error(start, prompt):
    thread = start()

    async def close():
        running = asyncio.create_task(collect(thread, prompt, ENDLESS))
        await wait_until(lambda: thread.stats().running)
        await asyncio.to_thread(thread.close)
        with pytest.raises(EngineClosedError, match="shutting down"):
            await running

    asyncio.run(close())


def test_closing_waits_for_a_request_that_is_being_added(start, prompt, monkeypatch):
    """`close` with a timeout must not find the engine idle while the thread adds a request to it."""
    thread, adding, closing_began = start(), threading.Event(), threading.Event()
    add = thread.engine.add

    def slow_add(*arguments):
        adding.set()
        closing_began.wait()
        return add(*arguments)

    monkeypatch.setattr(thread.engine, "add", slow_add)
    with ThreadPoolExecutor(2) as pool:
        request = thread.engine.request(prompt, GenerationConfig(max_new_tokens=3, ignore_eos=True))
        answer = pool.submit(lambda: list(thread.generate([request])))
        adding.wait()
        closed = pool.submit(lambda: closing_began.set() or thread.close(300))
        assert answer.result()[-1][1].response.generate_token_len == 3
        closed.result()


def test_a_failure_while_a_request_is_added_is_its_own(start, prompt, monkeypatch):
    thread, config = start(max_batch_size=2, max_waiting=2), GenerationConfig(max_new_tokens=3, do_sample=True, n=2)
    with monkeypatch.context() as patched:
        inject_fault(patched, thread.engine, "add", lambda request, _: request.index == 1, ValueError("no such seed"))
        with pytest.raises(RequestFailedError, match="inside the engine") as raised:
            asyncio.run(collect(thread, prompt, config))
        assert str(raised.value.__cause__) == "no such seed"
    for _ in range(3):  # the slots of the failed request are free again
        assert asyncio.run(collect(thread, prompt, config))
    assert thread.healthy


def test_a_receiver_that_fails_costs_its_own_request(start, prompt):
    thread, received = start(), []

    def deliver(number, piece):
        received.append(piece)
        raise OSError("the receiver is gone")

    thread.submit([thread.engine.request(prompt, ENDLESS)], deliver)
    assert asyncio.run(collect(thread, prompt, GenerationConfig(max_new_tokens=20, ignore_eos=True)))
    asyncio.run(wait_until(lambda: thread.stats().cancelled == 1))
    assert len(received) < 20


def test_an_engine_thread_that_dies_leaves_nobody_waiting(start, prompt, monkeypatch):
    thread = start()
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(thread.engine, "step", lambda: (_ for _ in ()).throw(SystemExit()))
    with pytest.raises(EngineClosedError):
        asyncio.run(collect(thread, prompt, ENDLESS))
    with pytest.raises(EngineClosedError):
        asyncio.run(collect(thread, prompt, ENDLESS))
    assert not thread.healthy


def test_after_a_failure_the_next_request_is_answered(start, prompt, monkeypatch, caplog):
    thread, config = start(), GenerationConfig(max_new_tokens=4)
    with monkeypatch.context() as patched:
        inject_fault(patched, thread.engine.runner, "prefill", lambda *a: True, OOM)
        with pytest.raises(RequestFailedError, match="not enough memory") as raised:
            asyncio.run(collect(thread, prompt, config))
        assert raised.value.out_of_memory and thread.healthy
        for _ in range(7):
            with pytest.raises(RequestFailedError):
                asyncio.run(collect(thread, prompt, config))
        assert not thread.healthy  # until a request is answered again
    with monkeypatch.context() as patched:  # outside of any single request
        inject_fault(patched, thread.engine.scheduler, "admit", lambda: True, RuntimeError("a fault"))
        with pytest.raises(RequestFailedError, match="inside the engine"):
            asyncio.run(collect(thread, prompt, config))
    assert "a fault" in caplog.text
    assert asyncio.run(collect(thread, prompt, config)) and thread.healthy


def test_an_engine_that_fails_again_and_again_is_unhealthy_for_a_while(start, prompt, monkeypatch):
    """After the while the next request shows whether it works again; an engine that gets none would stay unhealthy."""
    thread, config = start(), GenerationConfig(max_new_tokens=2)
    asyncio.run(collect(thread, prompt, config))
    assert thread.healthy
    thread.engine.counters.failed_in_row = 5
    assert not thread.healthy
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert thread.healthy
    monkeypatch.undo()
    asyncio.run(collect(thread, prompt, config))
    assert thread.healthy and thread.engine.counters.failed_in_row == 0


def test_a_call_is_made_between_steps(start, prompt):
    """In the engine's thread, while an answer is generated, whose tokens stay the same; its error is its caller's."""
    thread, config = start(), GenerationConfig(max_new_tokens=40, ignore_eos=True)
    expected = [piece.tokens for piece in asyncio.run(collect(thread, prompt, config))]

    async def call_meanwhile():
        pieces, seen = [], []
        async with aclosing(thread.stream(prompt, config)) as stream:
            async for piece in stream:
                pieces.append(piece.tokens)
                if len(pieces) == 3:
                    future = thread.call(lambda: (threading.current_thread().name, thread.engine.idle))
                    seen.append(await asyncio.wrap_future(future))
        return pieces, seen

    pieces, seen = asyncio.run(call_meanwhile())
    assert pieces == expected and seen == [("engine", False)]
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0).result(60)
    assert thread.call(lambda: "again").result(60) == "again"


def test_a_call_that_waits_ends_with_the_engine(start):
    thread, begun, go = start(), threading.Event(), threading.Event()
    running = thread.call(lambda: begun.set() or go.wait(60))
    waiting, cancelled = thread.call(lambda: "made"), thread.call(lambda: 1)
    assert cancelled.cancel() and begun.wait(60)
    closing_thread = threading.Thread(target=thread.close)
    closing_thread.start()
    while not thread._closing:
        time.sleep(0.005)
    go.set()
    closing_thread.join()
    assert running.result(60) is True
    with pytest.raises(EngineClosedError):
        waiting.result(60)
    with pytest.raises(EngineClosedError):
        thread.call(lambda: 1)
