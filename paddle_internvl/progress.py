"""Bars for what takes long: on stderr, only where that is a terminal and nobody asked for quiet, and after a second.

In: how much there is to do. Out: a tqdm bar to be updated. It knows nothing about the work.
"""

from __future__ import annotations

import sys

_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """Draw no bars from here on in this process (or draw them again)."""
    global _quiet
    _quiet = quiet


def shown() -> bool:
    """Whether bars are drawn."""
    return not _quiet and sys.stderr is not None and sys.stderr.isatty()


def bar(what: str, total: int | None = None, unit: str = "it", delay: float = 1.0):
    """A tqdm bar, a context manager.

    Args:
        what: stands before it. total: units there are. unit: 'B' is written in kB, MB, GB. delay: seconds before it is
            drawn.
    """
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=unit, unit_scale=unit == "B", delay=delay, disable=not shown())
