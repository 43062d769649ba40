"""Work queue: threads for the work of preparing prompts, the cheapest first, with ageing.

In: functions with a cost in pixels. Out: their results. The threads start at once: a server short of memory can't start
any.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from paddle_internvl import runtime
from paddle_internvl.engine.request import RequestFailedError
from paddle_internvl.serve.accesslog import error_trace, log

T = TypeVar("T")
_PIXELS_PER_SECOND = 20e6  # decoding and tiling, about; work of so many pixels lets a second's later work pass


class WorkQueue:
    """A fixed number of threads and a priority queue. Work that waits is dropped when its task is cancelled.

    Args:
        threads: number of threads.
        name: of the threads.
    """

    def __init__(self, threads: int, name: str):
        self._queue: queue.PriorityQueue = queue.PriorityQueue()
        self._order = itertools.count()
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    async def run(self, pixels: int, work: Callable[..., T], *arguments) -> T:
        """The result of `work(*arguments)`.

        Args:
            pixels: that the work decodes.
            work: called in a thread.
        Raises:
            RequestFailedError: out of memory.
        """
        future: Future = Future()
        due = time.monotonic() + pixels / _PIXELS_PER_SECOND
        self._queue.put((due, next(self._order), future, work, arguments))
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            _, _, future, work, arguments = self._queue.get()
            if work is None:
                return
            if not future.set_running_or_notify_cancel():
                continue
            out_of_memory = False
            try:
                future.set_result(work(*arguments))
            except Exception as error:
                out_of_memory = runtime.is_out_of_memory(error)
                if out_of_memory:  # the error's frames hold the pictures: it ends here
                    log.warning("out of memory while a prompt was prepared: %s", error_trace(error))
                    future.set_exception(RequestFailedError.without_memory())
                else:
                    future.set_exception(error)
            del future, work, arguments
            if out_of_memory:
                runtime.release_memory()

    def close(self) -> None:
        """End the threads after their present work, and drop the work that waits."""
        for _ in self._threads:
            self._queue.put((-1.0, next(self._order), None, None, ()))
