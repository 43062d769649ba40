"""The bundled checkpoint: accuracy as in its model card; scenes and questions of its training data."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from demo.tiny import conversations, questions, scenes
from demo.tiny.cases import Case, collect, foreign, paraphrases
from demo.tiny.evaluate import evaluate, is_right
from demo.tiny.wordings import FRAMES, TALK, TYPED, WORDINGS
from tests.random_checkpoints import ROOT, TOKENIZER

QUESTIONS = 8  # of each kind
_ROW = re.compile(r"^\| (?P<kind>[^|]+?) +\| *(?P<number>\d+) *\| *(?P<exact>[\d.]+) % *\|", re.MULTILINE)


@pytest.fixture(scope="module")
def new_wordings():
    return paraphrases()


def test_accuracy_is_that_of_the_model_card(new_wordings):
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    card = {row["kind"]: float(row["exact"]) / 100 for row in _ROW.finditer((TOKENIZER / "README.md").read_text())}
    assert {"two pictures", "motion", "small print, tiled", "small print, one tile", "new wordings"} <= card.keys()
    model, tokenizer = AutoModel.from_pretrained(str(TOKENIZER)), AutoTokenizer.from_pretrained(str(TOKENIZER))
    kinds = ("two pictures", "motion", "box", "small print, tiled")
    cases = [case for case in collect(QUESTIONS) if case.kind in kinds] + new_wordings[::36] + foreign()[::23]
    table, _ = evaluate(model, tokenizer, cases)
    for kind in (*kinds, "new wordings", "foreign"):
        expected = card[kind]
        deviation = (max(expected * (1 - expected), 0.02) / table[kind]["questions"]) ** 0.5
        assert abs(table[kind]["right"] - expected) < 3.5 * deviation, (kind, table[kind], expected)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("red circle[[100, 100, 300, 300]]", True),
        ("red circle[[150, 100, 350, 300]]", True),  # intersection over union 0.6
        ("red circle[[200, 100, 400, 300]]", False),  # 1 / 3
        ("blue circle[[100, 100, 300, 300]]", False),
        ("red circle[[100, 100, 300, 300], [0, 0, 50, 50]]", False),
        ("red circle", False),
    ],
)
def test_a_box_is_right_by_its_overlap(given, right):
    question = questions.Question("box", "", "<ref>red circle</ref><box>[[100, 100, 300, 300]]</box>")
    assert is_right(Case("box", (), "", question), given) is right


def test_training_sees_none_of_the_new_wordings(new_wordings):
    def plain(text: str) -> str:
        return re.sub(r"\W", "", text.lower())

    said = [text for topic in TALK.values() for texts in topic["said"].values() for text in texts]
    for row in WORDINGS:
        for language in ("en", "zh"):
            texts = WORDINGS[row][language] + TYPED[row][language]
            said += texts + [frame.format(q=text, l=text) for frame in FRAMES[language] for text in texts]
            said += [rewording for text in texts for rewording in questions.rewordings(text)]
    names = {"shape", "shapes", "color", "position", "image"}
    trained = {plain(text) for text in said}
    templates = []
    for case in new_wordings:
        text = case.question.text
        for name in sorted(names & case.question.names.keys(), key=lambda name: -len(case.question.names[name])):
            text = text.replace(case.question.names[name], "{" + name + "}")
        templates.append(plain(text))
    assert len(new_wordings) == 463 and len(foreign()) == 276
    assert not trained & set(templates)


def test_every_typed_wording_can_be_filled():
    names = {"shape": "circle", "shapes": "circles", "color": "red", "position": "left", "image": "Image-1"}
    for row, by_language in TYPED.items():
        used = {name for texts in WORDINGS[row].values() for text in texts for name in re.findall(r"{(\w+)}", text)}
        for language, texts in by_language.items():
            assert len(texts) >= 60 and not set(texts) & set(WORDINGS[row][language])
            for text in texts:
                assert set(re.findall(r"{(\w+)}", text)) <= used and text.format(**names)
                assert (questions.language_of(text) == "zh") == (language == "zh"), text


def test_one_question_about_a_picture():
    for seed in range(50):
        rng = random.Random(seed)
        assert len(questions.scene_questions(scenes.objects_scene(rng), rng, 1)) == 1


def test_synonyms_of_a_wording():
    forms = questions.rewordings("Count an object in {image}.")
    assert len(forms) == len(set(forms)) == 4 and "Count an item in {image}." in forms
    assert "这个图案是啥颜色的？" in questions.rewordings("这个物体是什么颜色的？")
    assert questions.rewordings("Image-1里的数字？") == ["Image-1里的数字？"]


def test_every_wording_has_fifteen_to_twenty_five_forms():
    rows = {(row, language): texts for row, by_language in WORDINGS.items() for language, texts in by_language.items()}
    assert not {key: len(texts) for key, texts in rows.items() if not 15 <= len(set(texts)) == len(texts) <= 25}


def test_conversations_are_read_by_training(tmp_path):
    """All kinds: every sample fits, its marks match its pictures, and the same seed writes the same files."""
    from paddle_internvl.training import SFTDataset

    meta = conversations.write(tmp_path / "one", samples=40, seed=5)
    recipe = json.loads((ROOT / "demo/tiny/sft.json").read_text())
    dataset = SFTDataset(str(meta), str(TOKENIZER), max_seq_length=recipe["max_seq_length"])
    kinds = json.loads(meta.read_text())
    assert list(kinds) == list(conversations.KINDS) and len(dataset) == sum(kind["length"] for kind in kinds.values())
    assert all((np.asarray(dataset[index]["labels"]) != -100).sum() >= 2 for index in range(len(dataset)))
    conversations.write(tmp_path / "other", samples=40, seed=5)
    for file in (tmp_path / "one").glob("*.jsonl"):
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


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
    rng, checked = random.Random(0), 0
    for _ in range(100):
        scene = scenes.objects_scene(rng)
        for question in questions.scene_questions(scene, rng, 8):
            if question.language == "zh":
                continue
            color, shape, position = (question.names.get(name) for name in ("color", "shape", "position"))
            found = [t for t in scene.things if color in (None, t.color) and shape in (None, t.shape)]
            expected = {
                "count": [str(len(scene.things))],
                "count color": [str(len(found))],
                "count shape": [str(len(found))],
                "color at": [t.color for t in scene.things if t.position == position],
                "shape at": [t.shape for t in scene.things if t.position == position],
                "color of shape": [t.color for t in found],
                "shape of color": [t.shape for t in found],
                "where": [t.position for t in found],
                "is there": ["yes" if found else "no"],
                "is text": ["no"],
            }.get(question.wording, [question.answer])
            assert expected == [question.answer], question
            checked += question.wording in ("count color", "where", "is there")
    assert checked > 100


def test_prints_are_asked_for_by_their_places():
    rng = random.Random(4)
    for make in (scenes.labels_scene, scenes.wide_labels_scene):
        for _ in range(20):
            scene = make(rng)
            cells = {}
            for print_ in scene.prints:
                column, row = (min(int(3 * value), 2) for value in print_.center)
                cells[scenes.POSITIONS[3 * row + column]] = print_.text
            asked = [q for q in questions.label_questions(scene, rng, 20) if q.wording == "read at"]
            assert sorted(question.answer for question in asked) == sorted(cells.values())
            for question in asked:
                if question.language == "en":
                    assert cells[question.names["position"]] == question.answer
