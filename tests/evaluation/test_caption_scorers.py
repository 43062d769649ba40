"""CIDEr: figures of both toolkits' own code on invented captions (goldens/evaluation/captions.json)."""

import json
import shutil

import pytest
from hypothesis import given, settings

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.scorers import SCORERS
from tests.evaluation.test_text_scorers import WILD
from tests.random_checkpoints import ROOT

GOLDEN = json.loads((ROOT / "tests/goldens/evaluation/captions.json").read_text(encoding="utf-8"))
ITEMS = [Item(index=i, question="?", answer=repr(texts)) for i, (_, texts) in enumerate(GOLDEN["captions"])]
ANSWERS = {i: caption for i, (caption, _) in enumerate(GOLDEN["captions"])}


def test_cider_is_vlmevalkit_s():
    scores = SCORERS["captions"](ITEMS, ANSWERS, None)
    assert scores.headline == scores.table["none", "CIDEr"] == pytest.approx(GOLDEN["vlmevalkit"]["CIDEr"])
    assert scores.rows[3].verdict == 0  # an empty caption


@pytest.mark.skipif(shutil.which("java") is None, reason="Stanford's PTB tokenizer needs Java")
def test_cider_is_upstream_s():
    scores = SCORERS["internvl_captions"](ITEMS, ANSWERS, None)
    assert scores.headline == pytest.approx(GOLDEN["internvl"]["CIDEr"])
    assert [row.verdict for row in scores.rows.values()] == pytest.approx(GOLDEN["internvl"]["rows"])
    wild = {0: "a\u2028b\rc\x85d\ud800", 1: "", 9: " \n "}  # line ends and lone surrogates
    assert [row.verdict is None for row in SCORERS["internvl_captions"](ITEMS, wild, None).rows.values()] == [
        i not in wild for i in range(len(ITEMS))
    ]


@settings(max_examples=20, deadline=None)
@given(answer=WILD)
def test_every_caption_has_a_verdict(answer):
    rows = SCORERS["captions"](ITEMS, {**ANSWERS, 0: answer}, None).rows
    assert 0 <= rows[0].verdict <= 10


def test_java_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ImportError, match="needs Java"):
        SCORERS["internvl_captions"](ITEMS, ANSWERS, None)
    assert SCORERS["captions"](ITEMS, {}, None).headline is None
