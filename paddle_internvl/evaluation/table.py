"""Tables of runs in the layouts of the model cards: published figures beside those of runs, with their difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paddle_internvl.evaluation.published import CARDS, ERRATA, Card, published_model
from paddle_internvl.evaluation.run_scores import Figure, RunScores, benchmark_figure, column_figure

_NONE = "-"


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        title: of the table.
        header: of the columns.
        rows: of cells.
        notes: what a reader of the figures has to know.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A run beside a model of a card.

    Attributes:
        run: scores.
        figures: of the run by column; None where the run has none.
        average: of the run's figures; None unless every column has a complete one.
        published: model of the card, or None.
        published_figures: of the model, by column.
        published_average: mean that the card prints, or that its figures give where the card errs.
    """

    run: RunScores
    figures: tuple[Figure | None, ...]
    average: float | None
    published: str | None
    published_figures: tuple[float | None, ...]
    published_average: float | None


def compare_with_card(run: RunScores, name: str, beside: str | None = None) -> Comparison:
    """A run beside a model of a card.

    Args:
        run: scores.
        name: of the card in `CARDS`.
        beside: model of the card; None: the one whose name the run has.
    """
    card = CARDS[name]
    figures = tuple(column_figure(run, column) for column in card.columns)
    values = [_value(figure) for figure in figures]
    complete = card.averages and None not in values
    published = published_model(beside or run.model, card)
    average = card.averages.get(published)
    return Comparison(
        run, figures, sum(values) / len(values) if complete else None, published,
        card.figures.get(published, (None,) * len(card.columns)), ERRATA.get((name, published), average),
    )  # fmt: skip


def tables_of(runs: Sequence[RunScores], cards: Sequence[str] | None = None, beside: str | None = None) -> list[Table]:
    """Tables of runs: one for each card, and one of the benchmarks that stand on none of them.

    Args:
        runs: scores.
        cards: names in `CARDS`; None: those of the models, or where none has them, those of the benchmarks.
        beside: model of the cards; None: for each run the one of its name.
    Raises:
        ValueError: `beside` is on none of the cards.
    """
    if beside and not any(published_model(beside, CARDS[name]) for name in cards or CARDS):
        models = sorted({model for name in cards or CARDS for model in CARDS[name].figures})
        raise ValueError(f"no card has figures of {beside}; they have {', '.join(models)}")
    tables, used = [], set()
    for name in cards or cards_of(runs, beside):
        compared = [compare_with_card(run, name, beside) for run in runs]
        used |= {source.partition(":")[0] for one in compared for f in one.figures if f for source in f.sources}
        layout = _models_are_rows if CARDS[name].models_are_rows else _benchmarks_are_rows
        tables.append(layout(CARDS[name], compared))
    others = sorted({name for run in runs for name in run.documents} - used)
    return tables + ([_others(runs, others)] if others else [])


def cards_of(runs: Sequence[RunScores], beside: str | None) -> list[str]:
    """Cards with a benchmark of the runs: those that have one of the models, or all where none has."""
    found = [name for name, card in CARDS.items() if any(column_figure(run, c) for run in runs for c in card.columns)]
    published = [name for name in found if any(published_model(beside or run.model, CARDS[name]) for run in runs)]
    return published or found


def _models_are_rows(card: Card, compared: Sequence[Comparison]) -> Table:
    rows = []
    for one in compared:
        values = [one.average, *map(_value, one.figures)]
        published = [one.published_average, *one.published_figures]
        average = _number(one.average, card.digits)
        ours = [f"{one.run.model} (run)", average, *(_text(figure, card.digits) for figure in one.figures)]
        if one.published:
            rows.append([f"{one.published} (card)", *(_number(value, card.digits) for value in published)])
            rows.append(ours)
            rows.append(["difference", *(_difference(*pair, card.digits) for pair in zip(values, published))])
        else:
            rows.append(ours)
        rows.append(["rows", _NONE, *map(_counts, one.figures)])
    header = ("Model", "Avg.", *(column.name for column in card.columns))
    return Table(card.title, header, tuple(map(tuple, rows)), _notes(card, compared))


def _benchmarks_are_rows(card: Card, compared: Sequence[Comparison]) -> Table:
    header = ["Benchmark"]
    for one in compared:
        header += [f"{one.published} (card)"] if one.published else []
        header += [f"{one.run.model} (run)", *(["difference"] if one.published else []), "rows"]
    rows = []
    for i, column in enumerate(card.columns):
        row = [column.name]
        for one in compared:
            figure, published = one.figures[i], one.published_figures[i]
            row += [_number(published, card.digits)] if one.published else []
            row.append(_text(figure, card.digits))
            row += [_difference(_value(figure), published, card.digits)] if one.published else []
            row.append(_counts(figure))
        rows.append(tuple(row))
    return Table(card.title, tuple(header), tuple(rows), _notes(card, compared))


def _others(runs: Sequence[RunScores], names: Sequence[str]) -> Table:
    header, rows, found = ["Benchmark"], [], []
    for run in runs:
        header += [f"{run.model} (run)", "rows"]
    for name in names:
        figures = [benchmark_figure(run, name) if name in run.documents else None for run in runs]
        rows.append((name, *(cell for figure in figures for cell in (_text(figure, 2), _counts(figure)))))
        found += [figure for figure in figures if figure]
    notes = [note for figure in found for note in figure.notes] + _partial_note(found)
    return Table("Other benchmarks", tuple(header), tuple(rows), tuple(dict.fromkeys(notes)))


def _notes(card: Card, compared: Sequence[Comparison]) -> tuple[str, ...]:
    notes = [note for one in compared for figure in one.figures if figure for note in figure.notes]
    figures = [figure for one in compared for figure in one.figures if figure]
    notes += _partial_note(figures)
    if card.averages and any(one.average is None for one in compared):
        notes.append("an average needs a complete figure of every benchmark")
    for one in compared:
        printed = card.averages.get(one.published)
        if printed != one.published_average:
            notes.append(f"the card prints {printed} for {one.published}; its figures give {one.published_average}")
    return tuple(dict.fromkeys(notes))


def _partial_note(figures: Iterable[Figure]) -> list[str]:
    partial = any(figure.is_partial for figure in figures)
    return ["a partial run has no figure; the row counts are shown instead"] if partial else []


def _text(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return _NONE
    if figure.is_partial:
        return f"{figure.scored} of {figure.expected} rows"
    return "no figure" if figure.value is None else _number(figure.value, digits)


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def _counts(figure: Figure | None) -> str:
    return _NONE if figure is None else f"{figure.scored}/{figure.expected}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _difference(value: float | None, published: float | None, digits: int) -> str:
    return _NONE if value is None or published is None else f"{value - published:+.{digits}f}"
