"""`eval run` against a loop of `chat` on the same rows, and killed again and again: time, answers, files.

    python -m tests.soak.killed_evaluation FOLDER [--per-kind 23] [--kills 5] [--seed 0]

The loop loads the model, opens pictures and asks `model.chat` row by row; both are measured without loading. The last
line is JSON. Exit code 1 if answers or files differ.
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

import numpy as np

from demo.tiny.benchmark import write_benchmark
from paddle_internvl.chat.pipeline import Pipeline
from paddle_internvl.evaluation import BENCHMARKS, evaluate
from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint
from paddle_internvl.evaluation.pictures import open_pictures
from paddle_internvl.evaluation.prompts import render
from paddle_internvl.evaluation.readers import read_items
from paddle_internvl.media.images import image_tiles

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"


def chat_loop(model, data: Path) -> tuple[list[str], float]:
    """Answers of `chat`, row by row, and their seconds."""
    benchmark, answers = BENCHMARKS["Tiny_DEV"], []
    began = time.monotonic()
    for item in read_items(benchmark, data):
        prompt = render(item, benchmark)
        tiles = [
            image_tiles(picture, model.config.tile_side, max_num=limit)
            for picture, limit in zip(open_pictures(prompt), prompt.limits)
        ]
        answers.append(
            model.chat(
                model.tokenizer, np.concatenate(tiles), prompt.text, {"max_new_tokens": prompt.max_new_tokens},
                num_patches_list=[len(cut) for cut in tiles],
            )
        )  # fmt: skip
    return answers, time.monotonic() - began


def journal(folder: Path, name: str) -> Path:
    return folder / name / f"{name}_Tiny_DEV.jsonl"


def command_line(folder: Path, data: Path, name: str) -> subprocess.Popen:
    """Start `paddle-internvl eval run`."""
    words = [sys.executable, "-W", "ignore", "-m", "paddle_internvl.cli.main", "eval", "run", str(CHECKPOINT)]
    words += ["--data", f"Tiny_DEV={data}", "--work-dir", str(folder), "--name", name, "--concurrency", "4"]
    with open(folder / f"{name}.log", "a") as log:
        return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)


def killed(folder: Path, data: Path, rows: int, kills: int, seed: int) -> list[int]:
    """Run to the end with kills on the way; rows that were done at each."""
    rng, done, file = random.Random(seed), [], journal(folder, "killed")
    for target in sorted(rng.sample(range(1, rows - 1), kills)):
        process = command_line(folder, data, "killed")
        while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < target):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(file.read_bytes().count(b"\n"))
    assert command_line(folder, data, "killed").wait() == 0, (folder / "killed.log").read_text()[-2000:]
    return done


def soak(folder: Path, per_kind: int, kills: int, seed: int) -> dict:
    """Report of the runs."""
    data = folder / "Tiny_DEV.tsv"
    rows = write_benchmark(data, per_kind)
    with Pipeline(CHECKPOINT) as pipe:
        expected, loop = chat_loop(pipe.model, data)
        began = time.monotonic()
        evaluate(ChatCheckpoint(pipe, "whole"), [f"Tiny_DEV={data}"], work_dir=folder)
        run = time.monotonic() - began
    moments = killed(folder, data, rows, kills, seed)
    whole, again = (journal(folder, name).read_bytes() for name in ("whole", "killed"))
    answers = [json.loads(line)["answer"] for line in whole.splitlines()]
    faults = [*(["answers"] if answers != expected else []), *(["files"] if whole != again else [])]
    return {"rows": rows, "loop": loop, "run": run, "ratio": loop / run, "kills": moments, "faults": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-kind", type=int, default=23)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    report = soak(arguments.folder, arguments.per_kind, arguments.kills, arguments.seed)
    print(json.dumps(report))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
