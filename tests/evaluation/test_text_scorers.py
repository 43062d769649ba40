"""Scorers of text, number and box questions: verdicts of both toolkits' own code (goldens/evaluation/texts.json)."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.scorers import SCORERS
from paddle_internvl.evaluation.scorers.anls import levenshtein
from tests.random_checkpoints import ROOT

FOLDER = ROOT / "tests/goldens/evaluation"
GOLDEN = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
TEXTS = ("anls", "relaxed", "vqa_accuracy", "exact", "internvl_relaxed", "internvl_vqa_accuracy", "internvl_gqa")
WILD = st.one_of(
    st.text(max_size=200),
    st.sampled_from(
        ["", "9" * 50_000, "[" * 50_000, "[,,," * 9_000, " " * 50_000, "北京" * 20_000, "<b>a</b>", "[1,2]%", "1e999"]
    ),
)


def verdict(scorer: str, answer: str, reference: str, **columns: str):
    item = Item(index=0, question="?", answer=reference, columns=columns)
    return SCORERS[scorer]([item], {0: answer}, None).rows[0].verdict


def differing(scorer: str, expected: list, references=GOLDEN["references"], as_list=repr):
    """(prediction, references, golden verdict, our verdict) of the rows where the verdicts differ."""
    for prediction, row in zip(GOLDEN["predictions"], expected, strict=True):
        for texts, golden in zip(references, row, strict=True):
            ours = verdict(scorer, prediction, as_list(texts))
            if ours != pytest.approx(golden, abs=1e-6):
                yield prediction, texts, golden, ours


@pytest.mark.parametrize(
    ("scorer", "toolkit", "rule"),
    [
        ("anls", "vlmevalkit", "anls"),
        ("internvl_anls", "internvl", "anls"),
        ("vqa_accuracy", "vlmevalkit", "vqa_score"),
        ("exact", "vlmevalkit", "accuracy"),
    ],
)
def test_verdicts_are_the_toolkit_s(scorer, toolkit, rule):
    # Exact match of several different answers is their mean in VLMEvalKit; GQA has one answer a row.
    rows = [row for row in differing(scorer, GOLDEN[toolkit][rule]) if rule != "accuracy" or len(set(row[1])) == 1]
    # Blank answers are wrong here; a toolkit gives half of "5 ", whose blank its longer length counts.
    assert [row for row in rows if row[0].strip()] == []
    assert {tuple(texts) for _, texts, *_ in rows} <= {("5 ",), ("the",)}


def test_upstream_s_vqa_accuracy():
    ten = [(texts * 10)[:10] for texts in GOLDEN["references"]]
    rows = list(differing("internvl_vqa_accuracy", GOLDEN["internvl"]["vqa_score"], ten))
    # Blank answers are wrong, though they equal a reference of articles only.
    assert {(prediction.strip(), *texts) for prediction, texts, *_ in rows} == {("", *["the"] * 10)}


def test_upstream_s_gqa():
    first = [texts[0] for texts in GOLDEN["references"]]
    rows = list(differing("internvl_gqa", GOLDEN["internvl"]["gqa"], first, str))
    assert rows == [], rows


@pytest.mark.parametrize(("scorer", "toolkit"), [("relaxed", "vlmevalkit"), ("internvl_relaxed", "internvl")])
def test_relaxed_accuracy_measures_the_error_against_the_reference(scorer, toolkit):
    expected = GOLDEN[toolkit]["relaxed_accuracy"]
    if scorer == "internvl_relaxed":  # one plain reference a row
        expected = [
            [v for v, texts in zip(row, GOLDEN["references"], strict=True) if len(texts) == 1] for row in expected
        ]
        one = [texts[0] for texts in GOLDEN["references"] if len(texts) == 1]
        rows = list(differing(scorer, expected, one, str))
    else:
        rows = list(differing(scorer, expected))
    differences = {(prediction, str(texts).strip("[]'")): (golden, ours) for prediction, texts, golden, ours in rows}
    # Toolkits exchange answer and reference: 42.75 is 5 % below 45, of which 2.25 is more than 5 % of 42.75.
    assert differences == {("42.75", "45"): (0.0, 1.0)}


def test_docvqa_reference():
    golden = json.loads((FOLDER / "docvqa/expected.json").read_text(encoding="utf-8"))
    rows = json.loads((FOLDER / "docvqa/rows.json").read_text(encoding="utf-8"))
    items = [Item(index=row["index"], question="?", answer=repr(row["answers"])) for row in rows]
    scores = SCORERS["anls"](items, {row["index"]: row["prediction"] for row in rows}, None)
    expected = golden["vlmevalkit_2024_12_text_kept"]
    assert {str(index): row.verdict for index, row in scores.rows.items()} == pytest.approx(expected["row_score"])
    assert scores.headline == scores.table["none", "Overall"] == pytest.approx(expected["scores"]["Overall"])


def test_splits_categories_and_missing_answers():
    items = [
        Item(index=i, question="?", answer="5", split=split) for i, split in enumerate(["human"] * 3 + ["augmented"])
    ]
    scores = SCORERS["relaxed"](items, {0: "5", 1: "6", 3: "5.2"}, None)
    assert scores.table == {
        ("human", "Overall"): 50.0,
        ("augmented", "Overall"): 100.0,
        ("Overall", "Overall"): pytest.approx(200 / 3),
    }
    assert scores.headline == 75.0
    assert scores.rows[2].verdict is None
    items = [Item(index=i, question="?", answer="cat", category=name) for i, name in enumerate(["b", "a"])]
    scores = SCORERS["exact"](items, {0: "Cat ", 1: "dog"}, None)
    assert scores.table == {("none", "Overall"): 50.0, ("none", "a"): 0.0, ("none", "b"): 100.0}
    test_split = [Item(index=0, question="?", answer=None)]
    scores = SCORERS["anls"](test_split, {0: "x"}, None)
    assert (scores.table, scores.headline, scores.rows[0].verdict) == ({}, None, None)


@settings(max_examples=60, deadline=None)
@given(answer=WILD, reference=WILD, listed=st.booleans())
def test_every_answer_has_a_verdict(answer, reference, listed):
    text = repr([reference, "cat"]) if listed else reference
    for scorer in TEXTS:
        if scorer == "anls" and len(answer) * len(reference) > 10**6:
            continue
        value = verdict(scorer, answer, text)
        assert 0 <= value <= 1, (scorer, answer, text)
        assert answer.strip() or value == 0


def test_levenshtein_distance():
    assert levenshtein("kitten", "sitting") == 3
    assert math.isclose(verdict("anls", "abcdeXXXXX", "['abcde']"), 0.5)
