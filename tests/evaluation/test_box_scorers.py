"""Scorers of boxes: hits of both toolkits' own code (goldens/evaluation/texts.json)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.evaluation import score
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.scorers import SCORERS
from tests.evaluation.test_text_scorers import GOLDEN, WILD

CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def grounded(index, box, width, height, **fields) -> Item:
    columns = {"width": str(width), "height": str(height), **dict(zip(CORNERS, map(str, box), strict=True))}
    return Item(index=index, question="?", answer=None, columns=columns, **fields)


@pytest.mark.parametrize("scorer", ["refcoco", "internvl_refcoco"])
def test_hits_are_the_toolkit_s(scorer):
    toolkit = "internvl" if scorer.startswith("internvl") else "vlmevalkit"
    for i, target in enumerate(GOLDEN["targets"]):
        items = [grounded(n, *target) for n in range(len(GOLDEN["boxes"]))]
        scores = SCORERS[scorer](items, dict(enumerate(GOLDEN["boxes"])), None)
        expected = [row[i] for row in GOLDEN[toolkit]["boxes"]]
        hits = expected if toolkit == "internvl" else [hit for hit, _ in expected]
        for answer, hit, row in zip(GOLDEN["boxes"], hits, scores.rows.values(), strict=True):
            assert row.verdict == hit, (answer, target)
        assert scores.headline == pytest.approx(100 * sum(hits) / len(hits))
        if toolkit == "vlmevalkit":
            mean = 100 * sum(iou for _, iou in expected) / len(expected)
            assert scores.table["none", "Average IoU"] == pytest.approx(mean, abs=1e-4)


def test_the_average_is_the_mean_of_the_splits():
    box = (10, 10, 20, 20)
    items = [grounded(i, box, 100, 100, split="RefCOCO_val") for i in range(3)]
    items.append(grounded(3, box, 100, 100, category="RefCOCO+ test A"))
    items.append(grounded(4, box, 100, 100, split="my own"))
    right, wrong = "[[100, 100, 200, 200]]", "no"
    scores = SCORERS["refcoco"](items, {0: right, 1: wrong, 2: wrong, 3: right, 4: wrong}, None)
    precision = {row: value for (row, column), value in scores.table.items() if column == "Precision@1"}
    third = pytest.approx(100 / 3)
    assert precision == {
        "RefCOCO_val": third,
        "RefCOCO+_testA": 100.0,
        "my own": 0.0,
        "Average": pytest.approx(200 / 3),
    }


@pytest.mark.parametrize(
    "columns",
    [
        {"bbox": json.dumps([10.0, 10.0, 20.0, 20.0]), "width": "100", "height": "100"},
        {"bbox": "[0.1, 0.1, 0.2, 0.2]"},
    ],
)
def test_reference_boxes_of_other_files(columns):
    item = Item(index=0, question="?", answer=None, columns=columns)
    assert SCORERS["internvl_refcoco"]([item], {0: "[[100, 100, 200, 200]]"}, None).rows[0].verdict == 1
    bad = Item(index=0, question="?", answer="a", columns={"width": "w"})
    assert SCORERS["refcoco"]([bad], {0: "[[1, 1, 2, 2]]"}, None).headline is None


def test_rows_of_vlmevalkit_s_file_are_counted_by_split(tmp_path):
    header = ["index", "image_path", "question", "split", *CORNERS, "width", "height"]
    rows = [
        [i, "p.png", "?", split, 10, 10, 20, 20, 100, 100] for split in ("RefCOCO_val", "RefCOCO+_val") for i in (0, 1)
    ]
    file = tmp_path / "RefCOCO.tsv"
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")
    answers = {"RefCOCO_val_0": "[[100, 100, 200, 200]]", "RefCOCO_val_1": "no", "RefCOCO+_val_0": "no"}
    scores = score("RefCOCO", file, answers)
    assert (scores["scored"], scores["expected"], scores["headline"]) == (3, 4, None)
    assert scores["scores"]["Average/Precision@1"] == 25.0
    assert score("RefCOCO_val", file, answers)["headline"] == 50.0


@settings(max_examples=40, deadline=None)
@given(answer=WILD | st.lists(st.floats(), min_size=3, max_size=5).map(str))
def test_every_answer_has_a_verdict(answer):
    for scorer in ("refcoco", "internvl_refcoco"):
        row = SCORERS[scorer]([grounded(0, (1, 2, 3, 4), 10, 10)], {0: answer}, None).rows[0]
        assert row.verdict in (0, 1)
