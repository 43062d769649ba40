"""Profiling of the time to first token: seconds of the parts of the work, measured where it is done.

In: `with part(name)` around a piece of work, called within `with measured()`. Out: seconds of each part; the seconds of
an inner part are not counted in the outer one, so that all parts add up. Outside of `measured`, and in other threads, a
`part` does nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_current: ContextVar[Timing | None] = ContextVar("timing", default=None)


class Timing:
    """Seconds by part.

    Attributes:
        parts: name -> seconds, in the order in which they began.
        start: `time.monotonic` when measuring began.
    """

    def __init__(self):
        self.parts: dict[str, float] = {}
        self._open: list[str] = []
        self.start = self._since = time.monotonic()

    def enter(self, name: str) -> None:
        """Start a part; the part around it pauses."""
        self._settle()
        self.parts.setdefault(name, 0.0)
        self._open.append(name)

    def leave(self) -> None:
        """End the part that began last."""
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        now = time.monotonic()
        if self._open:
            self.parts[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def measured() -> Iterator[Timing]:
    """Measure the parts of the work done within."""
    timing = Timing()
    token = _current.set(timing)
    try:
        yield timing
    finally:
        _current.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count the time within for the part `name`; several parts of one name add up."""
    timing = _current.get()
    if timing is None:
        yield
        return
    timing.enter(name)
    try:
        yield
    finally:
        timing.leave()


def process_seconds() -> float | None:
    """Seconds since this process was started, to a hundredth; None where the system has no /proc."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return None
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])  # field 22: starttime, since the machine was started
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
