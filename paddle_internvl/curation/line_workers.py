"""Workers on the lines of a JSONL file: in this process, or in processes of Ray; results in the order of the lines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from paddle_internvl.curation.jsonl import Line

Result = TypeVar("Result")
_BATCH = 64  # lines that a process of Ray gets at a time


def map_lines(
    worker: Callable[[Sequence[Line]], list[Result]],
    lines: Iterable[Line],
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[Result]:
    """Results of lines.

    Args:
        worker: a result for each line of a batch; pickled for Ray.
        lines: in order; read as the results are consumed.
        workers: processes of Ray; None: this process.
        address: of a Ray cluster; None: this machine.
    Raises:
        ChildProcessError: see `ordered_actors.map_batches`.
    """
    if workers is None:
        return (result for line in lines for result in worker([line]))
    from paddle_internvl.scale.ordered_actors import batches, map_batches

    results = map_batches(functools.partial(_same, worker), batches(lines, _BATCH), workers, address)
    return (result for batch in results for result in batch)


def _same(worker: Callable) -> Callable:
    return worker
