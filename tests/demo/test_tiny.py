"""The bundled checkpoint: accuracy as in its model card; scenes and questions of its training data."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from demo.tiny import questions, scenes
from demo.tiny.evaluate import collect, evaluate
from tests.random_checkpoints import ROOT, TOKENIZER

QUESTIONS = 8  # of each kind
_ROW = re.compile(r"^\| (?P<kind>[^|]+?) +\| *(?P<number>\d+) *\| *(?P<exact>[\d.]+) % *\|", re.MULTILINE)


def test_accuracy_is_that_of_the_model_card(monkeypatch):
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    card = {row["kind"]: float(row["exact"]) / 100 for row in _ROW.finditer((TOKENIZER / "README.md").read_text())}
    assert {"two pictures", "motion", "small print, tiled", "small print, one tile"} <= card.keys()
    model, tokenizer = AutoModel.from_pretrained(str(TOKENIZER)), AutoTokenizer.from_pretrained(str(TOKENIZER))
    kinds = ("two pictures", "motion", "colour", "small print, tiled")
    selected = [case for case in collect(QUESTIONS) if case.kind in kinds]
    monkeypatch.setattr("demo.tiny.evaluate.collect", lambda per_kind: selected)
    table, _ = evaluate(model, tokenizer, QUESTIONS)
    for kind in kinds:
        expected = card[kind]
        deviation = (max(expected * (1 - expected), 0.02) / QUESTIONS) ** 0.5
        assert abs(table[kind]["exact"] - expected) < 3.5 * deviation, (kind, table[kind], expected)


def test_the_checkpoint_is_small_and_complete():
    files = {file.name: file.stat().st_size for file in TOKENIZER.iterdir()}
    assert sum(files.values()) <= 12e6
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.model",
        "README.md",
    } <= files.keys()
    assert json.loads((TOKENIZER / "config.json").read_text())["model_type"] == "internvl_chat"


def test_pictures_of_the_tour_exist():
    for stop in json.loads((ROOT / "demo/assets/tour.json").read_text(encoding="utf-8")):
        assert all((ROOT / "demo/assets" / file).exists() for file in stop["pictures"])


def test_a_scene_is_the_same_in_every_process():
    script = "import random; from demo.tiny import scenes; print(scenes.objects_scene(random.Random(2)))"
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]  # orders of sets of texts
    outputs = [subprocess.check_output([sys.executable, "-c", script], env=env, cwd=ROOT) for env in environments]
    assert outputs[0] == outputs[1] != b""


@pytest.mark.parametrize("make", [scenes.objects_scene, scenes.text_scene, scenes.wide_scene])
def test_a_seed_fixes_a_scene(make):
    one, other = (make(random.Random(3)) for _ in range(2))
    assert one == other
    np.testing.assert_array_equal(np.asarray(scenes.render(one)), np.asarray(scenes.render(other)))
    looks = [(thing.shape, thing.color) for thing in one.things]
    assert len(set(looks)) == len(looks) and len({thing.position for thing in one.things}) == len(looks)


def test_answers_match_scenes():
    """Counted and compared by hand on scenes drawn at random."""
    rng = random.Random(0)
    for _ in range(300):
        scene = scenes.objects_scene(rng)
        for question in questions.scene_questions(scene, rng, 8):
            words = question.text.removesuffix("?").split()
            if question.text in (
                "How many objects are there?",
                "How many shapes are in the image?",
                "图中有几个物体？",
            ):
                assert question.answer == str(len(scene.things))
            elif question.text.startswith("What color is the object in the"):
                place = question.text.removeprefix("What color is the object in the ").removesuffix("?")
                assert [t.color for t in scene.things if t.position == place] == [question.answer]
            elif question.text.startswith("Is there a"):
                found = any((t.color, t.shape) == tuple(words[-2:]) for t in scene.things)
                if words[-2] in scenes.COLORS:
                    assert question.answer == ("yes" if found else "no")


def test_patch_labels_match_positions():
    rng = random.Random(1)
    for _ in range(20):
        scene = scenes.objects_scene(rng)
        labels = scenes.patch_labels(scene, 14).reshape(14, 14)
        for thing in scene.things:
            left, top, right, bottom = thing.box
            row, column = int((top + bottom) / 2 * 14), int((left + right) / 2 * 14)
            label = 1 + scenes.SHAPES.index(thing.shape) * len(scenes.COLORS) + list(scenes.COLORS).index(thing.color)
            assert labels[row, column] == label
