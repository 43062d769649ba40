"""Long checks of training: kills, and ranks under the launcher. `pytest -m soak` runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.soak.killed_training import CONFIG, ROOT, meta, soak

pytestmark = pytest.mark.soak
RANKS = {  # name -> ranks, accumulation, arguments
    "one": (1, 4, {}),
    "data parallel": (2, 2, {}),
    "sharding": (2, 2, {"sharding": "stage1"}),
    "four": (4, 1, {"sharding": "stage1"}),
    "two by two": (4, 1, {"sharding": "stage1", "sharding_parallel_degree": 2}),
    "recompute": (2, 2, {"recompute": True}),
}


def test_a_run_that_is_killed_ten_times_is_the_undisturbed_one(tmp_path):
    report = soak(tmp_path, steps=500, kills=10)
    assert report["faults"] == [] and report["steps"] == 500 and len(report["kills"]) == 10


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """OUTPUT of each row of `RANKS`, trained under `paddle.distributed.launch`."""
    folder, outputs = tmp_path_factory.mktemp("ranks"), {}
    for name, (ranks, accumulation, arguments) in RANKS.items():
        outputs[name] = folder / name
        config = {
            **CONFIG,
            **arguments,
            "max_steps": 5,
            "gradient_accumulation_steps": accumulation,
            "drop_path_rate": 0,
        }
        config |= {"meta_path": str(meta(folder)), "output_dir": str(outputs[name]), "save_steps": 100}
        (folder / "run.json").write_text(json.dumps(config))
        launcher = [
            "-m",
            "paddle.distributed.launch",
            "--nproc_per_node",
            str(ranks),
            "--log_dir",
            f"{folder}/{name} log",
        ]
        program = [str(Path(sys.executable).parent / "paddle-internvl"), "train", str(folder / "run.json")]
        command = [sys.executable, *(launcher if ranks > 1 else ()), *program]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{name}: {run.stderr[-3000:]}"
    return outputs


@pytest.mark.parametrize("name", [name for name in RANKS if name != "one"])
def test_ranks_train_as_one_rank_with_accumulation(outputs, name):
    expected, got = (
        [json.loads(line) for line in (outputs[row] / "metrics.jsonl").read_text().splitlines()]
        for row in ("one", name)
    )
    for line, single in zip(got, expected, strict=True):
        assert [line[key] for key in ("tokens", "learnt_tokens", "tiles")] == [
            single[key] for key in ("tokens", "learnt_tokens", "tiles")
        ]
        assert line["loss"] == pytest.approx(single["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-4)
    weights = [load_file(outputs[row] / "model.safetensors") for row in ("one", name)]
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key], value, rtol=0, atol=1e-4, err_msg=key)
