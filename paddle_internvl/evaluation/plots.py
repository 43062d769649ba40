"""Plots of runs: a radar and bars, beside the published figures in per cent of each benchmark's best figure; of a
benchmark that stands on no card its scores, in per cent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl import plotting
from paddle_internvl.evaluation.published import CARDS
from paddle_internvl.evaluation.run_scores import RunScores
from paddle_internvl.evaluation.table import cards_of, compare_with_card

_LEAST_AXES = 3  # of a radar


@dataclass(frozen=True)
class PlottedCard:
    """Figures of a card's table as they are drawn.

    Attributes:
        title: of the table.
        names: of the columns for which a run has a figure.
        series: by model, a figure in per cent of the best one for each column, or None.
        unit: of the figures.
    """

    title: str
    names: tuple[str, ...]
    series: Mapping[str, tuple[float | None, ...]]
    unit: str = "per cent of the best figure"


def plotted_card(
    runs: Sequence[RunScores], cards: Sequence[str] | None = None, beside: str | None = None
) -> PlottedCard:
    """The first card's table for which a run has figures; where none has, the scores of one benchmark.

    Args:
        runs: scores.
        cards: see `table.tables_of`.
        beside: see `table.tables_of`.
    Raises:
        ValueError: no run has a figure for a named card, or a complete figure at all.
    """
    for name in cards or cards_of(runs, beside):
        card = CARDS[name]
        series: dict[str, list[float | None]] = {}
        for run in runs:
            one = compare_with_card(run, name, beside)
            if one.published:
                series[f"{one.published} (card)"] = list(one.published_figures)
            series[f"{run.model} (run)"] = [figure.value if figure else None for figure in one.figures]
        ours = [values for model, values in series.items() if model.endswith(" (run)")]
        drawn = [i for i in range(len(card.columns)) if any(values[i] is not None for values in ours)]
        if drawn:
            scaled = {
                model: tuple(None if row[i] is None else 100 * row[i] / card.columns[i].maximum for i in drawn)
                for model, row in series.items()
            }
            return PlottedCard(card.title, tuple(card.columns[i].name for i in drawn), scaled)
    if not cards:
        return _scores(runs)
    raise ValueError("no run has a complete figure of a card's table")


def _scores(runs: Sequence[RunScores]) -> PlottedCard:
    """Scores of the first benchmark that every run has whole, a column for each of its rows."""
    shared = set.intersection(*(set(run.documents) for run in runs))
    for name in sorted(shared):
        documents = {f"{run.model} (run)": run.documents[name] for run in runs}
        if all(document["scored"] == document["expected"] for document in documents.values()):
            rows = list(dict.fromkeys(row for document in documents.values() for row in document["scores"]))
            series = {model: tuple(map(document["scores"].get, rows)) for model, document in documents.items()}
            return PlottedCard(name, tuple(row.removeprefix("none/") for row in rows), series, "per cent")
    raise ValueError("no benchmark is scored whole in every run")


def draw_radar(plotted: PlottedCard, file: Path) -> None:
    """Draw an axis for each benchmark and a polygon for each model.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: fewer than three benchmarks, or another kind of picture than matplotlib writes.
    """
    count = len(plotted.names)
    if count < _LEAST_AXES:
        raise ValueError(f"a radar needs {_LEAST_AXES} benchmarks with a figure, here are {count}; draw --bars")
    figure = plotting.new_figure(8, 7)
    axes = figure.add_subplot(projection="polar")
    angles = [2 * math.pi * i / count for i in range(count)]
    for model, values in plotted.series.items():
        closed = [float("nan") if value is None else value for value in (*values, values[0])]
        axes.plot([*angles, angles[0]], closed, label=model, marker="o", linestyle=_line(model))
    axes.set_xticks(angles, plotted.names)
    axes.set_ylim(0, 100)
    axes.set_title(plotted.title)
    figure.legend(loc="outside lower center", ncols=2)
    plotting.save(figure, file)


def draw_bars(plotted: PlottedCard, file: Path) -> None:
    """Draw a group of bars for each benchmark, a bar for each model. Errors: see `draw_radar`."""
    count = len(plotted.series)
    figure = plotting.new_figure(max(6, 0.5 * len(plotted.names) * (count + 1)), 5)
    axes = figure.add_subplot()
    width = 0.8 / count
    for number, (model, values) in enumerate(plotted.series.items()):
        places = [i + (number - (count - 1) / 2) * width for i in range(len(values))]
        bars = axes.bar(places, [value or 0 for value in values], width, label=model)
        axes.bar_label(bars, ["-" if value is None else f"{value:.1f}" for value in values], rotation=90, padding=2)
    axes.set_xticks(range(len(plotted.names)), plotted.names, rotation=30, ha="right")
    axes.set(ylabel=plotted.unit, title=plotted.title, ylim=(0, 115))
    figure.legend(loc="outside lower center", ncols=2)
    plotting.save(figure, file)


def _line(model: str) -> str:
    return "--" if model.endswith(" (card)") else "-"
