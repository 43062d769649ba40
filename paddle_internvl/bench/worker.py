"""A process that holds one contender of a benchmark and does what it is told, and the controller's handle of it.

Orders and answers are lines of JSON: {"do": "load", ...} and {"do": "run", ...}; the process ends with its input.
A run is timed in here, so that no time of the controller's is in it.

    python -m paddle_internvl.bench.worker ours|reference
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from paddle_internvl.bench import machine

_WARM_BELOW = 5.0  # seconds: a first run that is shorter does not count
_END_SECONDS = 30


class Worker:
    """A contender's process.

    Args:
        side: 'ours' or 'reference'. environment: variables besides this process's own. device: 'cpu', 'gpu' or None.
    """

    def __init__(self, side: str, environment: dict[str, str] | None = None, device: str | None = None):
        words = [sys.executable, "-m", "paddle_internvl.bench.worker", side, *([device] if device else [])]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open for as long as the process is)
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def ask(self, order: dict) -> dict:
        """Do something and wait for it.

        Raises:
            ValueError: it failed, or the process has ended; holds the last line of what it said.
        """
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ValueError(f"a process of the benchmark ended: {self._last_line()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(f"the benchmark's {order.get('kind', order['do'])} failed: {answer['error']}")
        return answer

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        code = self._process.wait()
        return f"{lines[-1] if lines else 'it said nothing'} (exit code {code})"

    def end(self) -> None:
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_error) -> None:
        self.end()


def measure(run, least_seconds: float, warm: bool = False) -> tuple[dict, object]:
    """Time a function.

    Args:
        run: does the work once. least_seconds: repeat it for so long. warm: the first run counts too, however short.
    Returns:
        Seconds of a run (the mean), runs, the share of the processors that others had meanwhile, bytes of memory at
        the most and then, bytes of mapped files in it; and what the last run returned.
    """
    machine.forget_peak()
    load, begun = machine.Load(), time.perf_counter()
    made, runs = run(), 1
    seconds = time.perf_counter() - begun
    if seconds < _WARM_BELOW and not warm:
        load, begun, runs, seconds = machine.Load(), time.perf_counter(), 0, 0.0
    while not runs or seconds < least_seconds:
        made = run()
        runs += 1
        seconds = time.perf_counter() - begun
    foreign = load.foreign()
    resident, peak = machine.resident()
    figures = {"seconds": seconds / runs, "runs": runs, "foreign": foreign, "peak": peak, "resident": resident}
    return {**figures, "mapped": machine.mapped()}, made


def _side(name: str, device: str | None):
    if name == "ours":
        from paddle_internvl.bench.ours import Ours as Side
    else:
        from paddle_internvl.bench.reference import Reference as Side
    return Side(device)


class _Obedience:
    """What orders do to a side. What was prepared for the last stage is kept: its next turn needs no first run."""

    def __init__(self, side):
        self._side, self._stage, self._run = side, None, None

    def __call__(self, order: dict) -> dict:
        if order["do"] == "ready":
            return {}
        if order["do"] == "load":
            load = partial(self._side.load, Path(order["folder"]), order["part"], **order["options"])
            return {**measure(load, 0, warm=True)[0], "stored": self._side.stored_bits}
        stage = order["kind"], order["numbers"]
        warm = stage == self._stage or order.get("cold", False)
        if stage != self._stage:
            self._run = None  # what it holds is freed first
            self._run, self._stage = self._side.prepare(order["kind"], **order["numbers"]), stage
        figures, made = measure(self._run, order["least_seconds"], warm)
        if order.get("save"):
            np.save(order["save"], self._side.array(made))
        return {**figures, "stored": self._side.stored_bits}


def main() -> int:
    """Obey until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    obey = _Obedience(_side(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
    for line in sys.stdin:
        try:
            answer = obey(json.loads(line))
        except (ValueError, RuntimeError, OSError, MemoryError, AttributeError, TypeError) as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
