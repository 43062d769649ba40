"""Where the time until an answer goes: parts of the work, measured where they are done.

In: `part` around a piece of work, anywhere beneath a `measured`. Out: seconds of each part; a part within another is
taken off the outer one, so that they add up. Without a `measured`, and in other threads, a `part` does nothing.
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
        parts: name -> seconds, in the order in which they began. begun: of `time.monotonic`, when measuring began.
    """

    def __init__(self):
        self.parts: dict[str, float] = {}
        self._open: list[str] = []
        self.begun = self._since = time.monotonic()

    def enter(self, name: str) -> None:
        """A part begins; the one around it rests."""
        self._settle()
        self.parts.setdefault(name, 0.0)
        self._open.append(name)

    def leave(self) -> None:
        """The part that began last ends."""
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        now = time.monotonic()
        if self._open:
            self.parts[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def measured() -> Iterator[Timing]:
    """Measure the parts of what is done within."""
    timing = Timing()
    token = _current.set(timing)
    try:
        yield timing
    finally:
        _current.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of the work, of that name; several of one name add up."""
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
    about = Path("/proc/self/stat")
    if not about.exists():
        return None
    ticks = int(about.read_text().rpartition(")")[2].split()[19])  # field 22: starttime, since the machine was started
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
