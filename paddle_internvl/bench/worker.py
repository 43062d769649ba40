"""Worker process of a benchmark, which holds one contender's model, and the controller's handle of it.

Commands and replies are lines of JSON: {"command": "load", ...} and {"command": "run", ...}; the process ends with its
input. It times a run itself, so that no time of the controller is part of it.

    python -m paddle_internvl.bench.worker ours|torch|openvino|llama.cpp
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from paddle_internvl.bench import machine, rivals

_WARM_UP_BELOW = 5.0  # seconds: a first run that is shorter warms up and does not count
_END_SECONDS = 30


class Worker:
    """A contender's process; a context that ends it.

    Args:
        side: a key of `_SIDES`.
        environment: variables besides this process's own.
        device: 'cpu', 'gpu' or None, see `runtime.choose_device`.
        python: the interpreter.
    """

    def __init__(
        self,
        side: str,
        environment: dict[str, str] | None = None,
        device: str | None = None,
        python: str = sys.executable,
    ):
        arguments = [python, "-m", "paddle_internvl.bench.worker", side, *([device] if device else [])]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open for as long as the process is)
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **rivals.environment(), **(environment or {})},
        )  # fmt: skip

    def send(self, command: dict) -> dict:
        """Send a command and wait for its reply.

        Raises:
            ValueError: the command failed, or the process ended; holds its last line.
        """
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ValueError(f"a process of the benchmark ended: {self._last_line()}")
        reply = json.loads(line)
        if "error" in reply:
            raise ValueError(f"the benchmark's {command.get('kind', command['command'])} failed: {reply['error']}")
        return reply

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        code = self.process.wait()
        return f"{lines[-1] if lines else 'without output'} (exit code {code})"

    def end(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(_END_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_error) -> None:
        self.end()


def measure(run: Callable[[], object], least_seconds: float, is_warm: bool = False) -> tuple[dict, object]:
    """Time a function.

    Args:
        run: does the work once.
        least_seconds: the work is repeated until so many seconds have passed.
        is_warm: the first run counts too, however short.
    Returns:
        'seconds' of a run (the mean), 'runs', the 'foreign' share of the processors meanwhile, bytes of 'peak' and
        'resident' memory and of 'mapped' files in it; and the result of the last run.
    """
    machine.reset_peak()
    load, start = machine.CpuLoad(), time.perf_counter()
    result, runs = run(), 1
    seconds = time.perf_counter() - start
    if seconds < _WARM_UP_BELOW and not is_warm:
        load, start, runs, seconds = machine.CpuLoad(), time.perf_counter(), 0, 0.0
    while not runs or seconds < least_seconds:
        result = run()
        runs += 1
        seconds = time.perf_counter() - start
    foreign = load.foreign_share()
    resident, peak = machine.resident()
    figures = {"seconds": seconds / runs, "runs": runs, "foreign": foreign, "peak": peak, "resident": resident}
    return {**figures, "mapped": machine.mapped()}, result


_SIDES = {  # name -> module and class; each imports its own framework
    "ours": ("ours", "Ours"),
    "torch": ("reference", "Reference"),
    "openvino": ("rivals.openvino_side", "OpenVINO"),
    "llama.cpp": ("rivals.llama_cpp_side", "LlamaCpp"),
}


def _side(name: str, device: str | None):
    module, kind = _SIDES[name]
    return getattr(import_module(f"paddle_internvl.bench.{module}"), kind)(device)


class CommandLoop:
    """Executes commands on a side. The last stage stays prepared: another trial of it needs no warm-up.

    Args:
        side: an `ours.Ours` or a `reference.Reference`.
    """

    def __init__(self, side):
        self._side, self._stage, self._run = side, None, None

    def execute(self, command: dict) -> dict:
        """Execute one command; returns its reply."""
        if command["command"] == "ping":
            return {}
        if command["command"] == "load":
            load = partial(self._side.load, Path(command["folder"]), command["part"], **command["options"])
            return {**measure(load, 0, is_warm=True)[0], "stored": self._side.stored_bits}
        stage = command["kind"], command["numbers"]
        is_warm = stage == self._stage or command.get("cold", False)
        if stage != self._stage:
            self._run = None  # frees its memory first
            self._run, self._stage = self._side.prepare(command["kind"], **command["numbers"]), stage
        figures, result = measure(self._run, command["least_seconds"], is_warm)
        if command.get("save"):
            np.save(command["save"], self._side.array(result))
        return {**figures, "stored": self._side.stored_bits}


def main() -> int:
    """Execute commands until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to the log
    loop = CommandLoop(_side(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
    for line in sys.stdin:
        try:
            reply = loop.execute(json.loads(line))
        except (ValueError, RuntimeError, OSError, MemoryError, AttributeError, TypeError) as error:
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        print(json.dumps(reply), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
