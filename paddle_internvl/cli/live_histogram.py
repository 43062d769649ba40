"""Live histograms of a load test on a terminal's stderr: times to first token and of whole answers, as they come in.

In: `Outcome`s. Out: two histograms with p50 and p95, redrawn in place and removed at the end; elsewhere a tqdm bar, or
nothing where stderr is no terminal.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from paddle_internvl import progress
from paddle_internvl.bench.load import OK, Outcome
from paddle_internvl.cli.live_table import STILL

_EDGES = np.array([digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)])  # seconds
_BAR = 16  # characters of the longest bar
_MEASURES = {
    "time to first token": lambda outcome: outcome.chunks[0] if outcome.chunks else None,
    "whole answer": lambda outcome: outcome.ended,
}


class LiveHistogram:
    """A context manager; outcomes are added within.

    Args:
        total: number of requests.
    """

    def __init__(self, total: int):
        self._total, self._outcomes, self._errors, self._began = total, [], 0, 0.0
        self._live = self._bar = None

    def __enter__(self) -> LiveHistogram:
        self._began = time.monotonic()
        if progress.shown() and sys.stderr.isatty() and os.environ.get("TERM") not in STILL:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stderr)
            self._live = Live(
                console=console, get_renderable=self._draw, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        else:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc="answered", disable=not progress.shown())
        return self

    def add(self, outcome: Outcome) -> None:
        """Count a finished request."""
        self._outcomes.append(outcome)
        self._errors += outcome.status != OK
        if self._bar is not None:
            self._bar.set_postfix(errors=self._errors, refresh=False)
            self._bar.update()

    def __exit__(self, *_) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._bar.close()

    def _draw(self):
        """The histograms side by side under a line of counts."""
        from rich.console import Group
        from rich.table import Table

        outcomes = list(self._outcomes)  # rich draws in a thread of its own
        good, seconds = [each for each in outcomes if each.status == OK], time.monotonic() - self._began
        line = f"{len(outcomes)} of {self._total} ended · {seconds:.0f} s · {len(outcomes) - len(good)} errors"
        grid = Table.grid(padding=(0, 3))
        grid.add_row(
            *(histogram(title, [v for o in good if (v := of(o)) is not None]) for title, of in _MEASURES.items())
        )
        return Group(line, grid)


def bins(values: Sequence[float]) -> list[tuple[float, int]]:
    """Upper edge in seconds and count of each bin from the first that has values to the last one: 1, 2, 5, 10, 20 ..
    milliseconds and so on."""
    counts = Counter(np.searchsorted(_EDGES, values, side="left").tolist())
    return [(_EDGES[n] if n < len(_EDGES) else np.inf, counts[n]) for n in range(min(counts), max(counts) + 1)]


def histogram(title: str, values: Sequence[float]):
    """A histogram of seconds as a rich table: a row for each bin, p50 and p95 below."""
    from rich.bar import Bar
    from rich.table import Table

    table = Table(box=None, title=title, title_justify="left", show_header=False, padding=(0, 1))
    if not len(values):
        table.add_row("-")
        return table
    counts = bins(values)
    largest = max(count for _, count in counts)
    for edge, count in counts:
        table.add_row(f"≤ {_time(edge)}", Bar(largest, 0, count, width=_BAR), str(count))
    p50, p95 = np.percentile(values, (50, 95))
    table.caption, table.caption_justify = f"p50 {_time(p50)} · p95 {_time(p95)}", "left"
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
