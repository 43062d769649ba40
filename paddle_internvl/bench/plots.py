"""Plots of a benchmark's document.

In: a dict of `model`, `training` or `growth`; outcomes of `load`. Out: files. Needs matplotlib (the extra `plots`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_internvl import plotting
from paddle_internvl.bench.load import OK, Outcome
from paddle_internvl.bench.stages import TORCH

_WIDTH, _ROW = 9.0, 0.32  # inches


def draw_model(document: Mapping, folder: Path) -> list[Path]:
    """Bars of every contender's time, as a share of torch's where torch took part, else in seconds.

    Returns:
        The files made.
    Raises:
        ImportError: matplotlib is not installed.
    """
    bars = [
        (f"{stage['stage']}: {name}", row["median"], row.get("of torch"), row.get("goal of torch"))
        for stage in document["stages"]
        for name, row in stage["contenders"].items()
        if name != TORCH
    ]
    files = []
    shares = [(label, ratio, goal) for label, _, ratio, goal in bars if ratio is not None]
    if shares:
        files.append(_bars(document, folder, "ratios", "time as a share of torch's by default", shares, 1.0))
    times = [(label, seconds, None) for label, seconds, _, _ in bars]
    files.append(_bars(document, folder, "times", "seconds", times, None))
    return files


def _bars(document: Mapping, folder: Path, name: str, title: str, bars: list[tuple], line: float | None) -> Path:
    figure = plotting.new_figure(_WIDTH, 1.2 + _ROW * len(bars))
    axes = figure.add_subplot()
    labels, values, goals = zip(*bars)
    rows = range(len(bars))
    axes.barh(rows, values, color=[plotting.BLUE if ": ours" in label else plotting.LIGHT for label in labels])
    marks = [(row, goal) for row, goal in zip(rows, goals) if goal]
    if marks:
        axes.scatter([goal for _, goal in marks], [row for row, _ in marks], marker="|", s=160, c="black", label="goal")
        axes.legend(loc="lower right")
    if line is None:
        axes.set_xscale("log")
    else:
        axes.axvline(line, color="black", linewidth=0.8)
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    machine = document["machine"]
    axes.set_title(f"{document['model']} on {machine['processor']}, {machine['cores']} cores")
    return plotting.save(figure, folder / f"{document['model'].replace(', ', '-').replace(' ', '-')}-{name}.png")


def draw_growth(document: Mapping, folder: Path) -> list[Path]:
    """Time and memory of every curve on logarithmic scales, with the line of its bound and the contenders beside it.

    Returns:
        The files made.
    Raises:
        ImportError: matplotlib is not installed.
    """
    files = []
    for curve in document["curves"]:
        figure = plotting.new_figure(_WIDTH, 3.6)
        for axes, quantity in zip(figure.subplots(1, 2), ("seconds", "memory")):
            xs, ys = curve["at"], curve[quantity]
            axes.plot(
                xs, ys, marker="o", color=plotting.BLUE, label=f"measured, exponent {curve[quantity + ' exponent']:.2f}"
            )
            bound = curve[f"{quantity} bound"]
            axes.plot(
                xs, [ys[-1] * (x / xs[-1]) ** bound for x in xs], "--", color=plotting.LIGHT, label=f"bound {bound}"
            )
            for (name, series), color in zip(curve["beside"].items(), plotting.SERIES[1:]):
                label = f"{name}, {series[quantity + ' exponent']:.2f}"
                axes.plot(xs, series[quantity], marker=".", color=color, label=label)
            axes.set(xscale="log", yscale="log", xlabel=curve["over"], ylabel=quantity)
            axes.set_xticks(xs, [str(x) for x in xs], minor=False)
            axes.minorticks_off()
            axes.legend()
        figure.suptitle(f"{curve['curve']}, {document['model']}")
        files.append(plotting.save(figure, folder / f"growth-{curve['name']}.png"))
    return files


def draw_load(outcomes: Sequence[Outcome], title: str, file: Path) -> Path:
    """Cumulative distribution of the time to the first token and of the whole answer, a line for each kind of request.

    Args:
        outcomes: of which the answered ones are drawn.
        title: of the figure.
        file: whose ending selects the format.
    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = plotting.new_figure(_WIDTH, 3.6)
    for axes, quantity in zip(figure.subplots(1, 2, sharey=True), ("time to first token", "whole answer")):
        for kind, color in zip(sorted({outcome.kind for outcome in outcomes}), plotting.SERIES):
            good = [outcome for outcome in outcomes if outcome.kind == kind and outcome.status == OK and outcome.chunks]
            if good:
                first = quantity == "time to first token"
                axes.ecdf([o.chunks[0] if first else o.ended for o in good], color=color, label=f"{kind} ({len(good)})")
        axes.set(xlabel=f"{quantity}, seconds", xlim=(0, None), ylim=(0, 1))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of answered requests")
    if figure.axes[0].lines:
        figure.axes[0].legend(loc="lower right")
    figure.suptitle(title)
    return plotting.save(figure, file)
