"""A table on stdout whose rows appear as they are known, above a line with the work at hand; whole at the end where
stdout is no terminal.

In: columns, rows, texts. Out: lines on stdout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from paddle_internvl.cli import conventions

STILL = ("dumb", "xterm-color")  # TERM of terminals that redraw no line: the second is that of a notebook's cells


class LiveTable:
    """A context manager; rows are added within.

    Args:
        columns: header -> width in characters on a terminal; a float is a share of what is left.
        header: whether the headers are shown.
        hidden: nothing is shown at all.
    """

    def __init__(self, columns: Sequence[tuple[str, int | float]], header: bool = True, hidden: bool = False):
        self._columns, self._header, self._hidden = columns, header, hidden
        self._rows: list[tuple[str, ...]] = []
        self._live = None

    def __enter__(self) -> LiveTable:
        if not self._hidden and sys.stdout.isatty() and os.environ.get("TERM") not in STILL:
            from rich.live import Live

            console = conventions.console()
            # The streams stay: Paddle's import puts another one in the place of sys.stderr for a while.
            self._live = Live(console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
            if self._header:
                console.print(self._table([[f"[bold]{name}[/]" for name, _ in self._columns]], fixed=True))
        return self

    def status(self, text: str) -> None:
        """Show a text below the rows, in place of the one before: the work at hand."""
        if self._live is not None:
            from rich.spinner import Spinner

            self._live.update(Spinner("dots", f"[dim]{text}[/]"))

    def add_row(self, *cells: str) -> None:
        """Add a row, with rich's markup."""
        self._rows.append(cells)
        if self._live is not None:
            self._live.console.print(self._table([cells], fixed=True))

    def __exit__(self, kind, *_) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None and not self._hidden:
            conventions.print_tables([self._table(self._rows, fixed=False)])

    def _table(self, rows: Sequence[Sequence[str]], fixed: bool):
        """A rich table; with fixed columns, one of a row stands below another."""
        from rich.table import Table

        table = Table(box=None, show_header=self._header and not fixed, expand=fixed, padding=(0, 1))
        for name, width in self._columns:
            share = (
                {"ratio": int(width * 100)} if isinstance(width, float) else {"min_width": width, "max_width": width}
            )
            table.add_column(name, overflow="fold", **(share if fixed else {}))
        for row in rows:
            table.add_row(*row)
        return table
