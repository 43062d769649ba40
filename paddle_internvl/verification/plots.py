"""Plot of errors by stage: one row a stage, the first computed one at the top, on a logarithmic scale.

In: `stages.StageResult`s. Out: a matplotlib figure, or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log10
from pathlib import Path

from paddle_internvl import plotting
from paddle_internvl.verification.stages import StageResult

_HOLDS, OUT_OF_BOUND, _SHOWN, _BOUND = plotting.BLUE, plotting.RED, plotting.GREY, plotting.DARK
_ROW, _HEAD = 0.24, 1.6  # inches: of a stage, and of everything else


def figure_of(results: Sequence[StageResult], title: str = ""):
    """The plot, as a `matplotlib.figure.Figure`.

    An error is a filled dot; its bound is a short line in the same row. An error of zero is a hollow dot at the left
    rim, an infinite one (other shapes, values not finite) an arrow at the right rim: a logarithmic scale has neither.

    Args:
        results: stages in the order of computation, see `stages.compare_stages`.
        title: of the plot.
    """
    from matplotlib.lines import Line2D

    sizes = [size for result in results for size in (result.error, result.bound) if size and isfinite(size)] or [1.0]
    left, right = 10.0 ** (floor(log10(min(sizes))) - 1), 10.0 ** (floor(log10(max(sizes))) + 2)
    figure = plotting.new_figure(8, _HEAD + _ROW * len(results))
    axes = figure.add_subplot(xscale="log", xlim=(left, right), ylim=(len(results) - 0.5, -0.5))
    axes.set_title(title, fontsize=11, parse_math=False)  # names of folders
    for row, result in enumerate(results):
        color = OUT_OF_BOUND if not result.holds else _SHOWN if result.bound is None else _HOLDS
        place = min(max(result.error, left), right)
        marker = "o" if isfinite(result.error) else ">"
        axes.plot([left, place], [row, row], color=color, linewidth=1, alpha=0.4)
        axes.plot([place], [row], marker, color=color, clip_on=False, gid=result.stage,
                  markerfacecolor=color if result.error else "white")  # fmt: skip
        if result.bound is not None:
            axes.plot(
                [result.bound] * 2, [row - 0.5, row + 0.5], color=_BOUND, linewidth=2, gid=f"bound {result.stage}"
            )
    axes.set_yticks(range(len(results)), [result.stage for result in results], fontsize=8)
    axes.set_xlabel("relative error (hollow: none; arrow: not comparable)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    dots = (("within its bound", _HOLDS), ("out of bound", OUT_OF_BOUND), ("not judged", _SHOWN))
    marks = [Line2D([], [], marker="o", linestyle="", color=color, label=name) for name, color in dots]
    marks.append(Line2D([], [], color=_BOUND, linewidth=2, label="bound"))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def save(results: Sequence[StageResult], title: str, target: Path) -> None:
    """Write the plot into a file; its ending selects the format: png, svg, pdf …"""
    plotting.save(figure_of(results, title), target)
