"""`eval prompts` and `eval list`, in this process."""

import argparse
import json
from pathlib import Path

import pytest

from paddle_internvl.cli import eval_list, eval_prompts

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation" / "prompts"
CHECKPOINT = Path(__file__).parents[2] / "demo" / "checkpoints" / "internvl-tiny"


def run(module, capsys, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert module.run(parser.parse_args([str(argument) for argument in arguments])) == 0
    return capsys.readouterr()


def test_prompts_equal_the_references(capsys, monkeypatch):
    golden = json.loads((GOLDENS / "prompts.json").read_text(encoding="utf-8"))["MMStar"]["vlmevalkit"]
    command = ["MMStar", "--data", GOLDENS, "--model", CHECKPOINT, "--json"]
    for style, environment, key in (
        ("InternVL2", "0", "plain"),
        ("MPO", "0", "mpo"),
        ("InternVL2_5", "1", "plain_cot"),
    ):
        monkeypatch.setenv("USE_COT", environment)
        lines = run(eval_prompts, capsys, *command, "--style", style).out.splitlines()
        assert [json.loads(line) for line in lines] == [
            {"index": row["index"], "prompt": row[key], "max_num": 6, "tiles": row["num_patches"],
             "max_new_tokens": 4096} for row in golden
        ]  # fmt: skip


def test_rules_follow_the_form_of_the_data(capsys, tmp_path):
    golden = json.loads((GOLDENS / "prompts.json").read_text(encoding="utf-8"))["internvl"]["MME"][0]
    picture, question = "0000.jpg", golden["prompt"].removeprefix("<image>\n").partition(" Answer the question")[0]
    (tmp_path / "OCR.txt").write_text(f"{picture}\t{question}\tYes\n" * 2)
    output = run(
        eval_prompts, capsys, "MME", "--data", tmp_path, "--model", CHECKPOINT / "config.json", "--json", "--limit", 1
    )
    assert json.loads(output.out) == {
        "index": golden["id"], "prompt": golden["prompt"], "max_num": golden["max_num"], "tiles": None,
        "max_new_tokens": golden["generation"]["max_new_tokens"],
    }  # fmt: skip
    assert "1 rows: a picture is missing" in output.err
    data = [GOLDENS / "DocVQA_VAL.tsv", "--model", CHECKPOINT, "--limit", 1]
    assert (
        "max_new_tokens 100\n<image>\n"
        in run(eval_prompts, capsys, "DocVQA_VAL", "--rules", "internvl", "--data", *data).out
    )
    with pytest.raises(ValueError, match="upstream's scripts have no such benchmark"):
        run(eval_prompts, capsys, "MMStar", "--rules", "internvl", "--data", GOLDENS, "--model", CHECKPOINT)


def test_list_of_benchmarks(capsys):
    rows = [json.loads(line) for line in run(eval_list, capsys, "--json", "--card", "mpo").out.splitlines()]
    assert [row["name"] for row in rows if row["name"].startswith("MMS")] == ["MMStar"]
    assert "HallusionBench.tsv" in run(eval_list, capsys).out
