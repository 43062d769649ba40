"""Prefetch: results of a function, computed ahead in worker processes, in order.

In: a function and its arguments. Out: an iterator of the results. The workers are forked, so that they share the memory
of this process; they never touch Paddle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

_AHEAD = 2  # results in work or waiting for each worker


def prefetch(function: Callable, items: Iterable, workers: int) -> Iterator:
    """Results of function(item) for each item, in order.

    Args:
        function: takes an item; its results must be picklable.
        items: may be endless.
        workers: number of worker processes; 0 computes each result here when it is taken.
    Raises:
        RuntimeError: a worker process has ended, e.g. for lack of memory.
    """
    if not workers:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (function, os.getpid()))
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) > workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise RuntimeError(
            f"one of {workers} data worker processes has ended; lower dataloader_num_workers if memory is short, or "
            "set it to 0 to read in the training process"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable | None = None  # of a worker process


def _start_worker(function: Callable, parent: int) -> None:
    """Set up a worker process: signals to the parent's process group do not reach it, and it ends after the parent."""
    global _function
    _function = function
    os.setpgrp()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's handlers are inherited
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(item):
    return _function(item)
