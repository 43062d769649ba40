"""Progress bars on stderr: only on a terminal, not with --quiet, and after a second; a line in place of a long one.

In: the amount of work. Out: a tqdm bar to be updated.
"""

from __future__ import annotations

import sys
from typing import IO

_quiet = False
_stream: IO[str] | None = None


def be_quiet(quiet: bool = True) -> None:
    """Switch progress bars off in this process (or on again)."""
    global _quiet
    _quiet = quiet


def write_to(stream: IO[str] | None) -> None:
    """Write progress bars to a stream instead of stderr: the description and the counts; None: to stderr again."""
    global _stream
    _stream = stream


def shown() -> bool:
    """Whether progress bars are drawn."""
    if _stream is not None:
        return True
    return not _quiet and sys.stderr is not None and sys.stderr.isatty()


def line(text: str) -> None:
    """Write a line to stderr in place of a bar: without a terminal, and not with --quiet."""
    if not _quiet and sys.stderr is not None and not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def bar(description: str, total: int | None = None, unit: str = "it", delay: float = 1.0):
    """A tqdm bar, a context manager.

    Args:
        description: text before the bar.
        total: number of units.
        unit: 'B' is written in kB, MB, GB.
        delay: seconds before the bar is drawn.
    """
    from tqdm import tqdm

    if _stream is not None:
        return tqdm(desc=description, total=total, file=_stream, bar_format="{desc} {n_fmt}/{total_fmt}")
    return tqdm(desc=description, total=total, unit=unit, unit_scale=unit == "B", delay=delay, disable=not shown())
