"""Ordered map over Ray actors: results of batches in their order, whatever the number of workers.

In: batches. Out: a result of each. An actor that dies is started again and its batches are repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from paddle_internvl.scale import cluster

Item, Batch, Result = TypeVar("Item"), TypeVar("Batch"), TypeVar("Result")
_MAX_RETRIES = 3  # restarts of an actor, and retries of a batch
_WAITING = 2  # batches an actor has at a time


class _Actor:
    """A worker inside a process of Ray."""

    def __init__(self, make: Callable[[], Callable]):
        self._worker = make()

    def work(self, batch):
        return self._worker(batch)


def map_batches(
    make: Callable[[], Callable[[Batch], Result]],
    batches: Iterable[Batch],
    workers: int,
    address: str | None = None,
    device: str | None = "cpu",
) -> Iterator[Result]:
    """Results of batches, in their order.

    Args:
        make: makes the worker of a process; pickled.
        batches: read as the results are consumed, a few for each worker in advance.
        workers: processes of Ray.
        address: of a cluster; None: one that is started on this machine.
        device: see `cluster.resources_per_process`.
    Raises:
        ImportError: Ray is not installed.
        ChildProcessError: a batch failed, or its worker died repeatedly.
    """
    with cluster.joined(address, workers) as ray:
        options = cluster.resources_per_process(ray, workers, device)
        actor = ray.remote(_Actor).options(max_restarts=_MAX_RETRIES, max_task_retries=_MAX_RETRIES, **options)
        actors = [actor.remote(make) for _ in range(workers)]
        pending: deque = deque()
        try:
            for number, batch in enumerate(batches):
                pending.append(actors[number % workers].work.remote(batch))
                if len(pending) == _WAITING * workers:
                    yield ray.get(pending.popleft())
            while pending:
                yield ray.get(pending.popleft())
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"the workers failed: {cluster.error_line(str(error)) or type(error).__name__}"
            ) from error


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
