"""Interleaved results of generators that run in threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")
_END = object()


def interleaved(generators: Iterable[Iterator[Result]], concurrency: int) -> Iterator[Result]:
    """Results of several generators, each as soon as it is there.

    When the iterator is closed or a generator fails, the generators that run end after their next result.

    Args:
        generators: read as threads become free.
        concurrency: generators that run at a time, each in a thread.
    Raises:
        BaseException: the error of a generator.
    """
    remaining, results, stopped, running = iter(generators), SimpleQueue(), threading.Event(), 0

    def run(generator: Iterator[Result]) -> None:
        try:
            for result in generator:
                results.put((result, None))
                if stopped.is_set():
                    return
            results.put((_END, None))
        except BaseException as error:
            results.put((_END, error))

    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while running < concurrency and (generator := next(remaining, None)) is not None:
                    pool.submit(run, generator)
                    running += 1
                if not running:
                    return
                result, error = results.get()
                if error is not None:
                    raise error
                if result is _END:
                    running -= 1
                else:
                    yield result
        finally:
            stopped.set()
