"""Time of a checkpoint's conversion beside `cp` on the same disk; both end when the files are on disk (fsync).

In: a runner's folders and rounds. Out: a stage's figures; memory is the converter's anonymous memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from paddle_internvl.bench import machine
from paddle_internvl.bench.stages import CONVERSION, CONVERSION_GOAL
from paddle_internvl.bench.trials import FOREIGN_LIMIT, TrialRunner

COPY, CONVERT = "cp", "convert"
_SAMPLE_SECONDS = 0.005


def run(runner: TrialRunner) -> dict:
    """Figures of the stage, in the form of `figures.summary`.

    Raises:
        ValueError: a process failed.
    """
    source, target = runner.folders["hf"], runner.scratch / "made"
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    rows = {name: {"seconds": [], "foreign": [], "peak": 0} for name in (COPY, CONVERT)}
    for number in range(runner.rounds):
        for name, row in rows.items():
            runner.on_progress(f"{CONVERSION}: {name}, round {number + 1} of {runner.rounds}")
            seconds, foreign, peak = min(_tries(name, source, target, runner.tries), key=lambda trial: trial[1])
            row["seconds"].append(round(seconds, 4))
            row["foreign"].append(round(foreign, 3))
            row["peak"] = max(row["peak"], peak)
    for row in rows.values():
        calm = [s for s, foreign in zip(row["seconds"], row["foreign"]) if foreign <= FOREIGN_LIMIT]
        row["median"], row["calm"] = median(calm or row["seconds"]), len(calm)
        row["bytes a second"] = round(size / row["median"])
    rows[CONVERT] |= {"of rival": round(rows[CONVERT]["median"] / rows[COPY]["median"], 4), "rival": COPY}
    rows[CONVERT]["goal of rival"] = round(CONVERSION_GOAL, 4)
    return {"stage": CONVERSION, "kind": CONVERSION, "numbers": {"bytes": size}, "per": "", "contenders": rows}


def _tries(name: str, source: Path, target: Path, tries: int):
    """(seconds, foreign share, peak bytes) of each try, until a trial is not disturbed."""
    for _ in range(tries):
        os.sync()
        load, start = machine.CpuLoad(), time.perf_counter()
        peak = _copy(source, target) if name == COPY else convert(source, target)
        seconds, foreign = time.perf_counter() - start, load.foreign_share()
        shutil.rmtree(target)
        yield seconds, foreign, peak
        if foreign <= FOREIGN_LIMIT:
            return


def _copy(source: Path, target: Path) -> int:
    _finish(subprocess.Popen(["cp", "-r", source, target]))
    _finish(subprocess.Popen(["sync", *target.iterdir()]))  # fsync of each file
    return 0


def convert(source: Path, target: Path) -> int:
    """Convert a folder in a process of its own; returns its peak of anonymous memory in bytes."""
    arguments = [sys.executable, "-m", "convert", "hf2pd", "--src", str(source), "--dst", str(target)]
    return _finish(subprocess.Popen(arguments, stdout=subprocess.DEVNULL))


def _finish(process: subprocess.Popen) -> int:
    """Wait for a process; returns its peak of anonymous memory in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, machine.status_bytes("RssAnon", process.pid))
        time.sleep(_SAMPLE_SECONDS)
    if process.returncode:
        raise ValueError(f"{process.args[0]} ended with exit code {process.returncode}")
    return peak
