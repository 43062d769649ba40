"""Ordered map over threads: results in the order of the items, a few items in advance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], concurrency: int) -> Iterator[Result]:
    """Results of a function, in the order of the items.

    Args:
        function: of an item; called on several threads.
        items: read as the results are consumed, at most twice the concurrency in advance.
        concurrency: threads.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
