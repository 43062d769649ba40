"""A training run that is killed again and again, beside an undisturbed one: final weights and memory.

    python -m tests.soak.killed_training FOLDER [--steps 500] [--kills 10] [--seed 0]

Both train the bundled checkpoint on text, pictures and clips with `paddle-internvl train`. The disturbed run gets
SIGKILL at random moments, every second time while it saves a checkpoint, and is started again with the same command.
The last line is JSON. Exit code 1 if the final weights differ or memory grows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests/goldens/training"
CONFIG = {
    "model_name_or_path": str(DATA / "checkpoint"), "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "drop_path_rate": 0.1, "device": "cpu",
    "max_seq_length": 1024, "truncation": True, "max_dynamic_patch": 2, "max_num_frame": 8, "save_steps": 10,
    "save_total_limit": 2,
}  # fmt: skip
_GROWTH = 1.1  # most memory after the run, as a multiple of the memory after a fifth of it


def meta(folder: Path) -> Path:
    """Meta JSON of the data sets of the golden runs."""
    sets = {"sft_run": "train", "packing": "b"}
    content = {
        name: {"root": str(DATA / "media"), "annotation": str(DATA / name / f"{file}.jsonl"), "repeat_time": 1}
        for name, file in sets.items()
    }
    file = folder / "meta.json"
    file.write_text(json.dumps(content))
    return file


def start(folder: Path, name: str, steps: int) -> subprocess.Popen:
    """Start `paddle-internvl train`, whose OUTPUT is a folder of a name."""
    config = {**CONFIG, "meta_path": str(folder / "meta.json"), "output_dir": str(folder / name), "max_steps": steps}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-W", "ignore", "-m", "paddle_internvl.cli.main", "train", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / f"{name}.log", "a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def steps_done(output: Path) -> int:
    """Lines of metrics.jsonl."""
    file = output / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def is_saving(output: Path) -> bool:
    """Whether a checkpoint has no mark yet."""
    return any(not (folder / "complete.json").exists() for folder in output.glob("checkpoint-*"))


def resident(process: subprocess.Popen) -> int:
    """Memory of a process in kB, without mapped files."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def undisturbed(folder: Path, steps: int) -> tuple[int, int]:
    """Run to the end; memory after a fifth of the steps and after nearly all."""
    process, memory = start(folder, "undisturbed", steps), {}
    while process.poll() is None:
        done = steps_done(folder / "undisturbed")
        if steps // 5 <= done < steps:
            memory[done] = resident(process)
        time.sleep(0.05)
    assert process.returncode == 0, (folder / "undisturbed.log").read_text()[-2000:]
    return memory[min(memory)], memory[max(memory)]


def disturbed(folder: Path, steps: int, kills: int, seed: int) -> list[str]:
    """Run to the end with kills on the way; the moment of each."""
    rng, output, moments = random.Random(seed), folder / "killed", []
    targets = sorted(rng.sample(range(2, steps - 12), kills))
    for number, target in enumerate(targets):
        process = start(folder, "killed", steps)
        while process.poll() is None and (
            steps_done(output) < target or (number % 2 and not is_saving(output) and steps_done(output) < target + 12)
        ):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.2 * (1 - number % 2))
        moments.append(f"step {steps_done(output)}{', saving' if is_saving(output) else ''}")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (folder / "killed.log").read_text()[-2000:]
    assert start(folder, "killed", steps).wait() == 0, (folder / "killed.log").read_text()[-2000:]
    return moments


def soak(folder: Path, steps: int, kills: int, seed: int = 0) -> dict:
    """Report of both runs."""
    meta(folder)
    before, after = undisturbed(folder, steps)
    moments = disturbed(folder, steps, kills, seed)
    weights = [load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed")]
    lines = [
        [{**json.loads(line), "seconds": 0} for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("undisturbed", "killed")
    ]
    equal = weights[0].keys() == weights[1].keys() and all((weights[0][k] == weights[1][k]).all() for k in weights[0])
    return {
        "steps": len(lines[0]), "losses": [lines[0][0]["loss"], lines[0][-1]["loss"]], "kills": moments,
        "weights equal": bool(equal), "metrics equal": lines[0] == lines[1], "memory": [before, after],
        "faults": [*(["weights"] if not equal else []), *(["metrics"] if lines[0] != lines[1] else []),
                   *(["memory"] if after > _GROWTH * before else [])],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    report = soak(arguments.folder, arguments.steps, arguments.kills, arguments.seed)
    print(json.dumps(report))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
