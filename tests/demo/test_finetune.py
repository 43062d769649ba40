"""Caption data set of the fine-tuning tutorial: captions name the shapes of their scenes, and the recipe takes it."""

import json
import random

import pytest

from demo.finetune import captions
from demo.tiny import scenes
from tests.random_checkpoints import ROOT, TOKENIZER


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    captions.write(folder, train=3, held_out=2)
    return folder


def test_captions_name_the_shapes_in_reading_order():
    things = [
        scenes.Thing("star", "orange", "top left", (0.0, 0.0, 0.3, 0.3)),
        scenes.Thing("cross", "red", "center", (0.4, 0.4, 0.6, 0.6)),
        scenes.Thing("circle", "blue", "bottom", (0.4, 0.7, 0.6, 0.9)),
    ]
    texts = [captions.caption(scenes.Scene(448, 448, things[:number])) for number in (1, 2, 3)]
    assert texts == [
        "An orange star.", "An orange star and a red cross.", "An orange star, a red cross and a blue circle.",
    ]  # fmt: skip


def test_samples_are_what_the_recipe_trains(folder):
    from paddle_internvl.training import SFTDataset
    from paddle_internvl.training.recipe import Recipe

    recipe = Recipe.from_dict(json.loads((ROOT / "demo/finetune/captions.json").read_text(encoding="utf-8")))
    for name, number in (("train", 3), ("held_out", 2)):
        dataset = SFTDataset(folder / f"{name}.json", str(TOKENIZER), **recipe.data)
        assert len(dataset) == number
        scene = scenes.objects_scene(random.Random(captions.SEEDS[name]))
        labels = dataset[0]["labels"]
        learnt = dataset.tokenizer.decode(labels[labels != -100].tolist())
        assert learnt.strip() == captions.caption(scene) + "<|im_end|>"
        assert dataset[0]["num_tiles"] == [1]


def test_exact_match_is_a_share():
    results = [captions.Answer("a.jpg", "A red star.", text) for text in ("A red star.", "A red star")]
    assert captions.exact_match(results) == 0.5
