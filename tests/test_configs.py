"""Every config of configs/ builds (without memory) and has the parameters its member is known by."""

import json
import re

import paddle
import pytest

from paddle_internvl import InternVLChatConfig, InternVLChatModel
from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT

BILLIONS = {  # as published
    "internvl2-1b": 0.94, "internvl2-2b": 2.21, "internvl2-4b": 4.15, "internvl2-8b": 8.08, "internvl2-26b": 25.5,
    "internvl2-40b": 40.1, "internvl2-llama3-76b": 76.3, "internvl2_5-1b": 0.94, "internvl2_5-2b": 2.21,
    "internvl2_5-4b": 3.71, "internvl2_5-8b": 8.08, "internvl2_5-26b": 25.5, "internvl2_5-38b": 38.4,
    "internvl2_5-78b": 78.4,
}  # fmt: skip


def test_there_is_one_of_each():
    assert {file.stem for file in (ROOT / "configs").glob("*.json")} == BILLIONS.keys()


@pytest.mark.parametrize("name", BILLIONS)
def test_size(name):
    config = InternVLChatConfig(**json.loads((ROOT / f"configs/{name}.json").read_text()))
    with paddle.LazyGuard():
        model = InternVLChatModel(config)
    counted = sum(parameter.size for parameter in model.parameters())
    digits = len(str(BILLIONS[name]).partition(".")[2])
    assert round(counted / 1e9, digits) == BILLIONS[name]
    written = re.search(rf"\[{name}\].*\| ([\d,]+) \|", (ROOT / "configs/README.md").read_text())
    assert int(written[1].replace(",", "")) == counted
    assert model.num_image_token == 256


def test_info_of_the_largest(capsys):
    assert main(["info", str(ROOT / "configs/internvl2_5-78b.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"]["total"] == 78_408_318_336 and document["tokens per tile"] == 256
