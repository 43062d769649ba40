"""A ladder's errors as a plot: one row per stage, from the first computed at the top, on a logarithmic scale.

In: `ladder.Rung`s. Out: a matplotlib figure, or a file. Judges nothing: colours are the rungs' own verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log10
from pathlib import Path

from paddle_internvl.verification.stages import Rung

_HOLDS, OUT_OF_BOUND, _SHOWN, _BOUND = "#00629b", "#c0392b", "#6b7280", "#1f2937"
_ROW, _HEAD = 0.24, 1.6  # inches: of a stage, and of everything else


def check_target(target: Path) -> None:
    """Refuse, before anything is computed, a file that could not be written.

    Raises:
        ImportError: matplotlib is not installed. ValueError: no kind of picture. FileNotFoundError: no such folder.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise ImportError("--plot needs matplotlib; pip install 'paddle_internvl[plots]'") from None
    endings = sorted(FigureCanvasAgg.get_supported_filetypes())
    if target.suffix[1:].lower() not in endings:
        raise ValueError(f"--plot {target}: its ending must be one of {', '.join(endings)}")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"--plot {target}: there is no folder {target.absolute().parent}")


def figure_of(rungs: Sequence[Rung], title: str = ""):
    """The plot, as a `matplotlib.figure.Figure`.

    An error is a dot, filled where the stage holds; its bound is a short line in the same row. Errors of zero stand
    at the left rim, marked by a hollow dot, those that can't be measured (other shapes, values not finite) at the
    right rim, marked by an arrow, since a logarithmic scale has no place for either.

    Args:
        rungs: stages in the order of computation; see `ladder.compare`.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    sizes = [each for rung in rungs for each in (rung.error, rung.bound) if each and isfinite(each)] or [1.0]
    left, right = 10.0 ** (floor(log10(min(sizes))) - 1), 10.0 ** (floor(log10(max(sizes))) + 2)
    figure = Figure(figsize=(8, _HEAD + _ROW * len(rungs)), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlim=(left, right), ylim=(len(rungs) - 0.5, -0.5))
    axes.set_title(title, fontsize=11, parse_math=False)  # names of folders
    for row, rung in enumerate(rungs):
        color = OUT_OF_BOUND if not rung.holds else _SHOWN if rung.bound is None else _HOLDS
        place = min(max(rung.error, left), right)
        marker = "o" if isfinite(rung.error) else ">"
        axes.plot([left, place], [row, row], color=color, linewidth=1, alpha=0.4)
        axes.plot([place], [row], marker, color=color, clip_on=False, gid=rung.stage,
                  markerfacecolor=color if rung.error else "white")  # fmt: skip
        if rung.bound is not None:
            axes.plot([rung.bound] * 2, [row - 0.5, row + 0.5], color=_BOUND, linewidth=2, gid=f"bound {rung.stage}")
    axes.set_yticks(range(len(rungs)), [rung.stage for rung in rungs], fontsize=8)
    axes.set_xlabel("relative error (hollow: none; arrow: not comparable)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    dots = (("within its bound", _HOLDS), ("out of bound", OUT_OF_BOUND), ("not judged", _SHOWN))
    marks = [Line2D([], [], marker="o", linestyle="", color=color, label=name) for name, color in dots]
    marks.append(Line2D([], [], color=_BOUND, linewidth=2, label="bound"))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def save(rungs: Sequence[Rung], title: str, target: Path) -> None:
    """Write the plot into a file, whose ending says which kind: png, svg, pdf …"""
    figure_of(rungs, title).savefig(target, dpi=120)
