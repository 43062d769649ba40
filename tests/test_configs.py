"""Every config of configs/ builds (without memory) and has the parameters its member is known by."""

import json
import re

import paddle
import pytest

from paddle_internvl import InternVLChatConfig, InternVLChatModel
from paddle_internvl.cli.info import describe
from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT

BILLIONS = {  # as published
    "internvl2-1b": 0.94, "internvl2-2b": 2.21, "internvl2-4b": 4.15, "internvl2-8b": 8.08, "internvl2-26b": 25.5,
    "internvl2-40b": 40.1, "internvl2-llama3-76b": 76.3, "internvl2_5-1b": 0.94, "internvl2_5-2b": 2.21,
    "internvl2_5-4b": 3.71, "internvl2_5-8b": 8.08, "internvl2_5-26b": 25.5, "internvl2_5-38b": 38.4,
    "internvl2_5-78b": 78.4,
}  # fmt: skip
NEWER = {  # vision tower, language model and the whole, as InternVL3.5's card and the hub state them
    "internvl3-1b": (0.3, 0.6, 0.9), "internvl3-2b": (0.3, 1.8, 2.1), "internvl3-8b": (0.3, 7.6, 7.9),
    "internvl3-9b": (0.3, 8.8, 9.1), "internvl3-14b": (0.3, 14.8, 15.1), "internvl3-38b": (5.5, 32.8, 38.4),
    "internvl3-78b": (5.5, 72.7, 78.4),
    "internvl3_5-1b": (0.3, 0.8, 1.1), "internvl3_5-2b": (0.3, 2.0, 2.3), "internvl3_5-4b": (0.3, 4.4, 4.7),
    "internvl3_5-8b": (0.3, 8.2, 8.5), "internvl3_5-14b": (0.3, 14.8, 15.1), "internvl3_5-38b": (5.5, 32.8, 38.4),
    "internvl3_5-30b-a3b": (0.3, 30.5, 30.8), "internvl3_5-241b-a28b": (5.5, 235.1, 240.7),
}  # fmt: skip


def test_there_is_one_of_each():
    assert {file.stem for file in (ROOT / "configs").glob("*.json")} == BILLIONS.keys() | NEWER.keys()


@pytest.mark.parametrize("name", BILLIONS)
def test_size(name):
    config = InternVLChatConfig(**json.loads((ROOT / f"configs/{name}.json").read_text()))
    with paddle.LazyGuard():
        model = InternVLChatModel(config)
    counted = sum(parameter.size for parameter in model.parameters())
    digits = len(str(BILLIONS[name]).partition(".")[2])
    assert round(counted / 1e9, digits) == BILLIONS[name]
    assert counted == written_parameters(name)
    assert model.num_image_token == 256


@pytest.mark.parametrize("name", NEWER)
def test_size_of_the_newer_members(name):
    """Counted by the mapping, whose shapes `convert/test_rules.py` holds to the built model."""
    config = json.loads((ROOT / f"configs/{name}.json").read_text())
    InternVLChatConfig(**config)
    counted = describe(config)["parameters"]
    parts = (counted["vision_model"], counted["language_model"], counted["total"])
    assert tuple(round(count / 1e9, 1) for count in parts) == NEWER[name]
    assert counted["total"] == written_parameters(name)


def written_parameters(name: str) -> int:
    """Parameters of a config by the table of configs/README.md."""
    row = re.search(rf"\[{name}\].*\| ([\d,]+) \|", (ROOT / "configs/README.md").read_text())
    return int(row[1].replace(",", ""))


def test_info_of_the_largest(capsys):
    assert main(["info", str(ROOT / "configs/internvl2_5-78b.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"]["total"] == 78_408_318_336 and document["tokens per tile"] == 256


def test_parameters_that_a_token_reads(capsys):
    """3.3 and 22 billion, as the names Qwen3-30B-A3B and 235B-A22B have it."""
    for name, active in (("30b-a3b", 3.35), ("241b-a28b", 22.2)):
        config = str(ROOT / f"configs/internvl3_5-{name}.json")
        assert main(["info", config, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["parameters"]["language_model of a token"] / 1e9 == pytest.approx(active, abs=0.05)
        assert (document["experts"]["experts"], document["experts"]["active"]) == (128, 8)
    main(["estimate", config, "--gpus", "8"])
    assert "a token reads 22.2 of the language model's 235.1 billion parameters" in capsys.readouterr().out
