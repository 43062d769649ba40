"""Formats of tables: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from paddle_internvl.evaluation.table import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def markdown(tables: Sequence[Table]) -> str:
    """Tables in Markdown, aligned, each under its title and above its notes."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def _markdown(table: Table) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    header, *rows = (f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells)
    line = f"| {' | '.join('-' * width for width in widths)} |"
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"### {table.title}", "", header, line, *rows, *([""] if notes else []), *notes])


def comma_separated(tables: Sequence[Table]) -> str:
    """Tables as CSV, one under the other with an empty line between; titles and notes are left out."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, table in enumerate(tables):
        writer.writerows([[]] * bool(number) + [table.header, *table.rows])
    return stream.getvalue()


def latex(tables: Sequence[Table]) -> str:
    """Tables in LaTeX, for the package booktabs; notes are comments."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    header, *rows = (" & ".join(map(_escaped, row)) + r" \\" for row in (table.header, *table.rows))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule", header, r"\midrule", *rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", *(f"% {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
