"""Prompts and tile counts equal to those that VLMEvalKit and upstream's scripts send on invented data."""

import json
from pathlib import Path

import pytest

from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.pictures import open_pictures, tile_grids
from paddle_internvl.evaluation.prompts import prediction, render
from paddle_internvl.evaluation.readers import read_items

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation" / "prompts"
PROMPTS = json.loads((GOLDENS / "prompts.json").read_text(encoding="utf-8"))
VARIANTS = {  # key of the golden -> style, chain of thought
    "plain": [("InternVL2", False), ("InternVL2_5", False)],
    "mpo": [("MPO", False)],
    "plain_cot": [("InternVL2_5", True)],
    "mpo_cot": [("MPO", True)],
}


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "about"])
def test_prompts_equal_vlmevalkits(name):
    benchmark = BENCHMARKS[name]
    items = {item.index: item for item in read_items(benchmark, GOLDENS)}
    for golden in PROMPTS[name]["vlmevalkit"]:
        for key, variants in VARIANTS.items():
            for style, chain_of_thought in variants:
                prompt = render(items[golden["index"]], benchmark, style, "vlmevalkit", chain_of_thought)
                assert prompt.text == golden[key], (golden["index"], key)
                assert prompt.max_num == golden["max_num"]
        tiles = [grid.tiles for grid in tile_grids(prompt, open_pictures(prompt))]
        assert tiles == golden["num_patches"]


@pytest.mark.parametrize(
    ("name", "style", "chain_of_thought", "answer", "expected"),
    [
        ("MMStar", "MPO", False, "Reasons.\nfinal answer: B \nAnswer: C", "B"),
        ("HallusionBench", "MPO", False, "no marker ", "no marker"),
        ("MMStar", "InternVL2_5", False, "Answer: B ", "Answer: B "),
        ("OCRBench", "MPO", False, "Final answer: B", "Final answer: B"),
        ("AI2D_TEST", "MPO", False, "Answer: B", "Answer: B"),
        ("AI2D_TEST", "MPO", True, "Answer: B", "B"),
        ("AI2D_TEST", "InternVL2_5", True, "Answer: B", "Answer: B"),
    ],
)
def test_the_final_answer_of_a_reasoning_model_is_the_prediction(name, style, chain_of_thought, answer, expected):
    assert prediction(answer, BENCHMARKS[name], style, "vlmevalkit", chain_of_thought) == expected
