"""Preference optimisation of the bundled checkpoint: answers of the questions, and the recipe's pairs."""

import json
import random

import pytest

from demo.preferences import crowded, run
from demo.tiny import scenes
from tests.random_checkpoints import ROOT, TOKENIZER


def test_answers_are_those_of_the_scene(tmp_path):
    things = [
        scenes.Thing("star", "orange", "top left", (0.0, 0.0, 0.3, 0.3)),
        scenes.Thing("star", "red", "center", (0.4, 0.4, 0.6, 0.6)),
    ]
    answers = {}
    for seed in range(2000):  # a wording is drawn for each question
        for question in crowded.scene_questions(scenes.Scene(448, 448, things), random.Random(seed)):
            answers[question.text] = question.answer
    assert answers["How many stars are there?"] == "2" and answers["有几个红色的物体？"] == "1"
    assert answers["Where is the red star?"] == "center" and answers["左上是什么形状？"] == "星形"
    assert answers["What color is the object in the top left?"] == "orange"
    assert answers["Is there a red star?"] == "yes"


def test_commands_and_accuracy(tmp_path, monkeypatch):
    """The commands in order; the trained checkpoint is not trained again."""
    calls = []
    monkeypatch.setattr(run, "paddle_internvl", lambda words: calls.append(words))
    assert run.align(tmp_path, seed=3) == tmp_path / "mpo"
    (tmp_path / "mpo").mkdir()
    (tmp_path / "mpo/config.json").touch()
    run.align(tmp_path, seed=3)
    assert [call[0] for call in calls] == ["curate", "curate", "train", "curate", "curate"]
    assert calls[2][-2:] == ["--seed", "3"]
    answers = tmp_path / "answers.jsonl"
    rows = [("count", "3", "3"), ("count", "3", " Three."), ("shape", "star", "star\n"), ("shape", "star", "")]
    lines = [{"kind": kind, "answer": answer, "response": response} for kind, answer, response in rows]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.accuracy(answers) == {"count": 1.0, "all": 0.75, "shape": 0.5}
    monkeypatch.setattr(run, "paddle_internvl", lambda words: 2)
    with pytest.raises(SystemExit):
        run.align(tmp_path)


def test_the_recipe_takes_the_pairs(tmp_path, monkeypatch):
    from paddle_internvl.curation.pairs import PairSettings, build_pairs
    from paddle_internvl.training import PreferenceDataset
    from paddle_internvl.training.recipe import Recipe

    config = json.loads((ROOT / run.RECIPE).read_text(encoding="utf-8"))
    method = config.pop("method")
    recipe = Recipe.from_dict(config, method)
    monkeypatch.setattr(crowded, "PICTURES", {"train": 1, "held_out": 1})
    crowded.write_all(tmp_path)
    questions, held_out = ((tmp_path / f"{split}.jsonl").read_text(encoding="utf-8") for split in crowded.PICTURES)
    assert len(questions.splitlines()) == 6 and questions != held_out
    question = json.loads(questions.splitlines()[0])
    answers = ["5", question["answer"], "0"]
    responses = [{**question, "response": answer, "prompt_version": "direct"} for answer in answers]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in responses))
    build_pairs(tmp_path / "answers.jsonl", tmp_path / "pairs", PairSettings(checks=(run.CHECK,)))
    dataset = PreferenceDataset(tmp_path / "pairs.json", str(TOKENIZER), **recipe.data)
    sample = dataset[0]
    assert len(dataset) == 2
    assert sample["num_tiles"] == [1] and recipe.preference.weights == {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
