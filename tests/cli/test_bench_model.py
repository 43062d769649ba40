"""`paddle-internvl bench model` and `bench growth` as a user calls them, on tiny configs."""

import json
import time

import numpy as np
import pytest

from paddle_internvl.bench import growth, machine
from paddle_internvl.bench.ours import Ours
from paddle_internvl.bench.worker import CommandLoop, Worker
from paddle_internvl.cli.main import main
from tests.random_checkpoints import TINY, random_checkpoint, tiny_config

CONFIG = str(TINY / "qwen2.json")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """Fixed peaks; no trial is repeated because of other tests that run beside."""
    monkeypatch.setattr(machine, "peaks", lambda *_: {"flops": 1e11, "bandwidth": 1e10})
    for module in ("trials", "conversion"):
        monkeypatch.setattr(f"paddle_internvl.bench.{module}.FOREIGN_LIMIT", 1.0)


class WorkerHere:
    """A `Worker` within this process: its commands and replies are the same."""

    def __init__(self, side, environment=None, device=None, python=""):
        self.loop = CommandLoop(Ours(device) if side == "ours" else Rival(python))

    def send(self, command):
        return self.loop.execute(command)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None


class Rival:
    """Stands for llama.cpp, whose files are not read."""

    stored_bits = 16

    def __init__(self, python):
        assert python == "/a/python"

    def load(self, folder, part, kind):
        assert (folder.name, kind) in {("gguf", "bf16"), ("gguf", "q8_0"), ("gguf", "q4_0")}

    def prepare(self, kind, length, tokens):
        return lambda: time.sleep(1e-6 * length)  # seconds of which a curve can be drawn


def test_ours_alone(tmp_path, capsys):
    words = ["bench", "model", CONFIG, "--no-torch", "--kernels", "off", "--rounds", "1"]
    words += ["--stages", "projector", "vision", "conversion"]
    file = tmp_path / "new" / "run.json"
    assert main([*words, "--folder", str(tmp_path / "work"), "--json", str(file), "--plot", str(tmp_path)]) == 0
    (document,) = json.loads(file.read_text())
    assert [stage["stage"] for stage in document["stages"]] == [
        "projector 7 tiles", "ViT 1 tile", "ViT 7 tiles", "conversion",
    ]  # fmt: skip
    for stage in document["stages"][:3]:
        assert list(stage["contenders"]) == ["ours"]
        (row,) = stage["contenders"].values()
        assert row["median"] > 0 and row["peak"] > 1 << 20 and row["flops share"] > 0
    assert list(document["stages"][3]["contenders"]) == ["cp", "convert"]
    assert document["stages"][3]["contenders"]["convert"]["of rival"] > 0
    assert (tmp_path / "qwen2-times.png").exists() and list((tmp_path / "work").iterdir()) == []
    shown = capsys.readouterr().out
    assert "GFLOP/s" in shown and "ViT 7 tiles" in shown


def test_growth(tmp_path, capsys, monkeypatch):
    curve = growth.Curve("frames", "a clip", "clip", "frames", (1, 2, 3), 99, 99, {"width": 60, "height": 40})
    monkeypatch.setattr(growth, "CURVES", (curve,))
    monkeypatch.setattr(growth, "Worker", WorkerHere)
    file = tmp_path / "growth.json"
    words = ["bench", "growth", CONFIG, "--rounds", "1", "--layers", "1", "--kernels", "off"]
    assert main([*words, "--json", str(file)]) == 0
    (figures,) = json.loads(file.read_text())["curves"]
    assert figures["at"] == [1, 2, 3] and min(figures["seconds"]) > 0 and figures["holds"]
    assert "a clip" in capsys.readouterr().out


def test_growth_beside_llama_cpp(tmp_path, capsys, monkeypatch):
    """Of the contenders those whose instructions the machine has; a point above --largest is left out for all."""
    monkeypatch.setattr(growth, "Worker", WorkerHere)
    monkeypatch.setattr(growth.rivals, "write_gguf", lambda python, folder, out, kinds: out)
    monkeypatch.setattr("paddle_internvl.bench.rivals.interpreters", lambda named, packages: named)
    words = ["bench", "growth", str(TINY / "qwen3_moe.json"), "--curves", "context", "--layers", "1", "--rounds", "1"]
    curve = growth.Curve(
        "context", "steps", "decode", "length", (8, 16, 32, 64), 9, 9, {"tokens": 2}, growth.CURVES[2].beside
    )
    monkeypatch.setattr(growth, "CURVES", (curve,))
    words += ["--kernels", "off", "--largest", "32", "--rivals", "llama.cpp=/a/python"]
    assert main([*words, "--json", str(tmp_path / "growth.json"), "--plot", str(tmp_path)]) in (0, 1)  # no timed test
    (figures,) = json.loads((tmp_path / "growth.json").read_text())["curves"]
    names = ["llama.cpp bf16", "ours int8", "llama.cpp q8_0", "ours int4", "llama.cpp q4_0"]
    assert figures["at"] == [8, 16, 32] and list(figures["beside"]) == names
    assert all(len(series["seconds"]) == 3 for series in figures["beside"].values())
    assert "llama.cpp q4_0" in capsys.readouterr().out and (tmp_path / "growth-context.png").exists()


def test_errors_of_a_worker_process(tmp_path):
    with Worker("ours") as worker:
        with pytest.raises(ValueError, match="load failed: CheckpointError: .*holds neither model.safetensors"):
            (tmp_path / "config.json").write_text(json.dumps(tiny_config("qwen2")))
            worker.send({"command": "load", "folder": str(tmp_path), "part": "all", "options": {}})
        with pytest.raises(ValueError, match="sing failed: AttributeError"):
            worker.send({"command": "run", "kind": "sing", "numbers": {}, "least_seconds": 0})
        worker.process.kill()
        with pytest.raises(ValueError, match="a process of the benchmark ended: .*exit code -9"):
            worker.send({"command": "ping"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", CONFIG, "--stages", "sing"], "stage 'sing' does not exist; choose answer"),
        (["model", "none.json", "--no-torch"], "none.json does not exist"),
        (["growth", "--curves", "moon"], "there is no curve 'moon'; curves: tiles, prompt"),
        (["growth", CONFIG, "--rivals", "openvino"], "'openvino' is no rival of the benchmark; choose llama.cpp"),
        (
            ["growth", CONFIG, "--curves", "tiles", "--largest", "2"],
            "three points make a curve, and tiles has 2 up to 2",
        ),
    ],
)
def test_wrong_calls(words, message, capsys):
    assert main(["bench", *words]) == 2 and message in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize("case", ["qwen2", "dynamic_gqa", "phi3_su", "llama"])
def test_both_sides_compute_the_same(case, tmp_path):
    """Every kind of stage on both sides, on weights that matter in every layer."""
    folder = random_checkpoint(tmp_path / "hf", tiny_config(case))
    outputs = {}
    kinds = {
        "preprocess": {"width": 300, "height": 200, "max_num": 4},
        "vision": {"tiles": 2},
        "projector": {"tiles": 2},
        "prefill": {"length": 12},
        "decode": {"length": 12, "tokens": 3},
        "answer": {"width": 168, "height": 112, "text": 6, "tokens": 5},
    }
    for side, options in (("ours", {}), ("reference", {}), ("reference", {"fused_attention": True})):
        with Worker(side) as worker:
            worker.send({"command": "load", "folder": str(folder), "part": "all", "options": options})
            for kind, numbers in kinds.items():
                file = tmp_path / "output.npy"
                command = {"kind": kind, "numbers": numbers, "least_seconds": 0.0, "save": str(file)}
                figures = worker.send({"command": "run", **command})
                assert figures["seconds"] > 0
                outputs[side + str(options), kind] = np.load(file)
    for kind in kinds:
        ours, default, best = (outputs[side, kind] for side in ("ours{}", "reference{}",
                                                            "reference{'fused_attention': True}"))  # fmt: skip
        np.testing.assert_allclose(ours, default, rtol=0, atol=2e-5 * max(1, np.abs(default).max()), err_msg=kind)
        np.testing.assert_allclose(best, default, rtol=0, atol=2e-5 * max(1, np.abs(default).max()), err_msg=kind)
