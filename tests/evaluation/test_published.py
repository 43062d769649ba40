"""Figures of the model cards: their averages recomputed, their columns in the table of benchmarks."""

import pytest

from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.published import CARDS, ERRATA, published_model


def test_averages_are_the_means_of_their_rows():
    wrong = {}
    for name, card in CARDS.items():
        for model, average in card.averages.items():
            mean = sum(card.figures[model]) / len(card.columns)
            if abs(mean - average) > 0.05 + 1e-9:
                wrong[name, model] = round(mean, 1)
    assert wrong == ERRATA == {("mpo", "InternVL2-5-8B"): 68.1}
    assert CARDS["mpo"].averages["InternVL2-5-8B"] == 68.9


@pytest.mark.parametrize("name", CARDS)
def test_columns_and_figures_fit(name):
    card = CARDS[name]
    assert {len(figures) for figures in card.figures.values()} == {len(card.columns)}
    for figures in card.figures.values():
        assert all(figure is None or 0 < figure <= c.maximum for figure, c in zip(figures, card.columns, strict=True))
    for column in card.columns:
        for source in (benchmark for sources in column.sources for benchmark in sources):
            row = BENCHMARKS[source.partition(":")[0]]
            if ":" not in source:
                named = row.cards.get(name.partition("-")[0])
                assert named in (column.name, column.name.partition(" (")[0], None), source
            assert column.rules in row.scorers, source


def test_models_are_found_by_their_checkpoints_names():
    assert published_model("InternVL2_5-4B-MPO", CARDS["mpo"]) == "InternVL2-5-4B-MPO"
    assert published_model("internvl2-8b", CARDS["internvl2"]) == "InternVL2-8B"
    assert published_model("InternVL2_5-4B-MPO-AWQ", CARDS["mpo"]) is None
