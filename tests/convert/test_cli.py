"""The converter's command line, as a user calls it."""

import json

import pytest

from convert.cli import main
from tests.random_checkpoints import random_checkpoint, tiny_config


@pytest.fixture
def source(tmp_path):
    return random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))


def test_both_directions(source, tmp_path, capsys):
    assert main(["hf2pd", "--src", str(source), "--dst", str(tmp_path / "pd"), "--max-shard-size", "0.5MB"]) == 0
    assert "0 unused" in capsys.readouterr().out
    assert main(["pd2hf", "--src", str(tmp_path / "pd"), "--dst", str(tmp_path / "back"), "--json"]) == 0
    audit = json.loads(capsys.readouterr().out)
    assert audit["keys_out"] == 76 and audit["bytes_out"] == audit["bytes_in"]
    assert (tmp_path / "back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_inspect(source, capsys):
    assert main(["inspect", str(source), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rules = {row["name"]: row["rule"] for row in document["tensors"]}
    assert document["layout"] == "upstream"
    assert rules["language_model.model.layers.0.attention.wqkv.weight"] == "Split"
    assert rules["mlp1.1.weight"] == "Transpose" and rules["mlp1.0.weight"] == "Keep"
    assert main(["inspect", str(source)]) == 0
    assert "[128, 64]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hf2pd", "--src", "/nowhere", "--dst", "x"], "/nowhere does not exist"),
        (["inspect", "/nowhere"], "/nowhere does not exist"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error


def test_bad_size(source, capsys):
    with pytest.raises(SystemExit) as left:
        main(["hf2pd", "--src", str(source), "--dst", "x", "--max-shard-size", "many"])
    assert left.value.code == 2 and "'many' is no size" in capsys.readouterr().err
