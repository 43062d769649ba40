"""The work queue: the cheapest work first, with ageing; cancelled work is dropped; out of memory costs one request."""

import asyncio
import threading

import pytest

from paddle_internvl.engine.request import RequestFailedError
from paddle_internvl.serve.work_queue import WorkQueue


@pytest.fixture
def one_thread():
    work_queue = WorkQueue(1, "test")
    yield work_queue
    work_queue.close()


def order_of(work_queue: WorkQueue, pixels: list[int], cancelled: int | None = None) -> list[int]:
    """The order in which work of these costs is done, all of which waits for the same thread."""
    go, order = threading.Event(), []

    async def main():
        first = asyncio.ensure_future(work_queue.run(0, go.wait))
        await asyncio.sleep(0)
        tasks = [asyncio.ensure_future(work_queue.run(cost, order.append, cost)) for cost in pixels]
        await asyncio.sleep(0)
        if cancelled is not None:
            tasks[cancelled].cancel()
            await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)

    asyncio.run(main())
    return order


def test_small_work_passes_large_work(one_thread):
    assert order_of(one_thread, [10**12, 10**11, 0, 10**13]) == [0, 10**11, 10**12, 10**13]


def test_work_of_equal_cost_keeps_its_order(one_thread):
    assert order_of(one_thread, [7, 7, 7]) == [7, 7, 7]


def test_cancelled_work_is_not_done(one_thread):
    assert order_of(one_thread, [10**11, 10**12], cancelled=0) == [10**12]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), OSError(12, "no memory")])
def test_out_of_memory_ends_one_request(one_thread, error, caplog):
    def fail():
        raise error

    async def main():
        with pytest.raises(RequestFailedError) as caught:
            await one_thread.run(0, fail)
        assert caught.value.out_of_memory and caught.value.__cause__ is None  # whose frames would hold the pictures
        return await one_thread.run(0, lambda: "next")

    assert asyncio.run(main()) == "next"
    assert "out of memory while a prompt was prepared" in caplog.text


def test_other_errors_are_the_callers(one_thread):
    with pytest.raises(ValueError, match="no number"):
        asyncio.run(one_thread.run(0, lambda: int("no number")))
