"""`paddle-internvl info --plan`: every parameter of the model, its source tensors, and the shard of each rank."""

import json
import subprocess
import sys

from safetensors.numpy import load_file

from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT


def plan(capsys, *words) -> list[dict]:
    assert main(["info", *map(str, words), "--plan", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_parameter_and_every_tensor_is_in_the_plan(hf_folders, models, capsys):
    rows = {row["parameter"]: row for row in plan(capsys, hf_folders["dynamic_gqa"])}
    assert {name: row["shape"] for name, row in rows.items()} == {
        name: list(parameter.shape) for name, parameter in models["dynamic_gqa"].named_parameters()
    }
    in_files = load_file(hf_folders["dynamic_gqa"] / "model.safetensors").keys()
    assert {tensor for row in rows.values() for tensor in row["tensors"]} == in_files
    projections = [rows[f"language_model.model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert {tensor for row in projections for tensor in row["tensors"]} == {
        "language_model.model.layers.0.attention.wqkv.weight"
    }


def test_shards_of_all_ranks_make_the_whole_parameter(hf_folders, capsys):
    rows = plan(capsys, hf_folders["dynamic_gqa"], "--device", "gpu", "--tp", "2")
    first, second = (row for row in rows if row["parameter"].endswith("layers.1.self_attn.q_proj.weight"))
    assert (first["device"], second["device"]) == ("gpu:0", "gpu:1") and first["rank"] < second["rank"]
    half = first["shape"][1]
    assert [row["shard"] for row in (first, second)] == [
        f"axis 1: 0..{half} of {2 * half}", f"axis 1: {half}..{2 * half} of {2 * half}"
    ]  # fmt: skip


def test_the_table_is_printed_without_paddle():
    code = "import sys; from paddle_internvl.cli.main import main; main(sys.argv[1:]); print('paddle' in sys.modules)"
    words = ["info", str(ROOT / "demo/checkpoints/internvl-tiny"), "--plan"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True)
    head, *rows, paddle = done.stdout.splitlines()
    assert head.split()[:4] == ["parameter", "shape", "tensors", "rule"] and len(rows) > 100 and paddle == "False"


def test_of_the_tensors_of_all_experts_the_table_has_two(hf_folders, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["info", str(hf_folders["qwen3_moe"]), "--plan"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "experts.down_proj" in line)
    assert "experts.0.down_proj.weight … " in line and "experts.7.down_proj.weight (8)" in line
