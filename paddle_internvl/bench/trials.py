"""Interleaved trials of contenders: A B C, A B C, ... each contender in its own process, on the same machine.

In: a stage, folders, rounds. Out: a `Trial` of each contender in each round, and the outputs. A trial is repeated if
other processes used the processors, and marked as disturbed if repeating does not help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_internvl import runtime
from paddle_internvl.bench.stages import Contender, Stage
from paddle_internvl.bench.worker import Worker

FOREIGN_LIMIT = 0.12  # share of the processors, above which a trial is disturbed
_PROCESS_BYTES = 600_000_000  # of a process without weights: 0.50 to 0.56 GB were measured
_FRESH = ("load", "cold")  # kinds of stages that every trial begins in a new process


@dataclass(frozen=True)
class Trial:
    """One measurement of one contender.

    Attributes:
        contender: its name.
        round: from 0.
        seconds: mean time of a run.
        runs: runs of which it is the mean.
        foreign: share of the processors that others used.
        peak: most bytes of the process's memory during the run.
        resident: bytes of the process's memory after it.
        stored: bits of a float weight.
    """

    contender: str
    round: int
    seconds: float
    runs: int
    foreign: float
    peak: int
    resident: int
    stored: int = 32

    @property
    def disturbed(self) -> bool:
        """Whether others used more of the processors than `FOREIGN_LIMIT`."""
        return self.foreign > FOREIGN_LIMIT


@dataclass
class TrialRunner:
    """Runs the trials of stages; a context that ends its processes.

    Args:
        contenders: name -> contender.
        folders: layout of a checkpoint, see `Contender.folder` -> its folder.
        scratch: folder for outputs.
        rounds: trials of each contender.
        tries: of a trial that is disturbed.
        least_seconds: of a trial; short runs are repeated.
        environment: variables of our own side's processes.
        interpreters: side -> Python interpreter of its processes; sides left out: this one.
        device: 'cpu', 'gpu' or None, see `runtime.choose_device`.
        part_bytes: part of the model -> bytes of its weights in float32.
        on_progress: called with a line before each trial.
    """

    contenders: Mapping[str, Contender]
    folders: Mapping[str, Path]
    scratch: Path
    rounds: int = 3
    tries: int = 3
    least_seconds: float = 0.5
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    part_bytes: Mapping[str, int] = field(default_factory=dict)
    on_progress: Callable[[str], None] = lambda line: None

    def __post_init__(self):
        self._workers: dict[str, Worker] = {}
        self._shared: tuple = ()  # part and contenders that the running processes were started for

    def __enter__(self) -> TrialRunner:
        return self

    def __exit__(self, *_error) -> None:
        self._end_all()

    def _end_all(self) -> None:
        while self._workers:
            self._workers.popitem()[1].end()

    def run(self, stage: Stage) -> tuple[list[Trial], dict[str, np.ndarray]]:
        """All trials of a stage, and the outputs of the first round by contender.

        Raises:
            ValueError: a contender failed.
        """
        names = [name for name in stage.contenders if name in self.contenders]
        if self._shared != (stage.part, names):
            self._end_all()
        self._shared = stage.part, names
        keep = self._fit_together(stage, names)
        trials: list[Trial] = []
        for number in range(self.rounds):
            for name in names:
                self.on_progress(f"{stage.name}: {name}, round {number + 1} of {self.rounds}")
                trials.append(self._trial(stage, name, number))
                if not keep:
                    self._workers.pop(name).end()
        outputs = {name: np.load(file) for name in names if (file := self._output(name)).exists()}
        for name in names:
            self._output(name).unlink(missing_ok=True)
        return trials, outputs

    def _output(self, name: str) -> Path:
        return self.scratch / f"{name.replace(' ', '_')}.npy"

    def _fit_together(self, stage: Stage, names: list[str]) -> bool:
        """Whether all contenders' processes stay from round to round; else each trial starts its own."""
        if stage.kind in _FRESH:
            return False
        needed = 0
        for name in names:
            contender = self.contenders[name]
            # Our side loads a whole model, as users do.
            part = stage.part if contender.side != "ours" or not stage.part else "all"
            needed += _PROCESS_BYTES + self.part_bytes.get(part, 0) * contender.memory
        return bool(self._workers) or needed <= runtime.free_memory("cpu")

    def _trial(self, stage: Stage, name: str, number: int) -> Trial:
        """The least disturbed of some tries."""
        trials: list[Trial] = []
        for _ in range(self.tries):
            if stage.kind in _FRESH and name in self._workers:
                self._workers.pop(name).end()
            loaded = None
            if name not in self._workers:
                self._workers[name], loaded = self._start(stage, self.contenders[name])
            if stage.kind == "load":
                figures = loaded
            else:
                figures = self._run(stage, name, save=number == 0 and not trials)
            if stage.kind == "cold":
                figures = _sum(loaded, figures)
            fields = ("seconds", "runs", "foreign", "peak", "resident", "stored")
            trials.append(Trial(name, number, **{field: figures[field] for field in fields}))
            if not trials[-1].disturbed:
                break
        return min(trials, key=lambda trial: trial.foreign)

    def _start(self, stage: Stage, contender: Contender) -> tuple[Worker, dict | None]:
        environment = self.environment if contender.side == "ours" else {}
        worker = Worker(
            contender.side,
            {**environment, **contender.environment},
            self.device,
            self.interpreters.get(contender.side, sys.executable),
        )
        try:
            worker.send({"command": "ping"})
            if not stage.part:
                return worker, None
            fields = {"folder": str(self.folders[contender.folder]), "part": stage.part, "options": contender.options}
            return worker, worker.send({"command": "load", **fields})
        except BaseException:
            worker.end()
            raise

    def _run(self, stage: Stage, name: str, save: bool) -> dict:
        cold = stage.kind == "cold"
        command = {"command": "run", "kind": "prefill" if cold else stage.kind, "numbers": stage.numbers, "cold": cold}
        saved = {"save": str(self._output(name))} if save else {}
        return self._workers[name].send({**command, "least_seconds": self.least_seconds, **saved})


def _sum(loaded: dict, ran: dict) -> dict:
    """Figures of a load and of the run behind it, together."""
    seconds = loaded["seconds"] + ran["seconds"]
    foreign = (loaded["foreign"] * loaded["seconds"] + ran["foreign"] * ran["seconds"]) / seconds
    return {**ran, "seconds": seconds, "foreign": foreign, "peak": max(loaded["peak"], ran["peak"])}
