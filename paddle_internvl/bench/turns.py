"""Contenders taking turns at a stage: A B C, A B C, ... each in a process of its own, so that what the machine does
meanwhile meets all of them alike.

In: a stage, folders, rounds. Out: a `Turn` of each contender in each round, and what each computed. A turn during which
others used the processors is repeated, and marked if that does not help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_internvl.bench.stages import Contender, Stage
from paddle_internvl.bench.worker import Worker

FOREIGN_LIMIT = 0.12  # share of the processors, above which a turn is repeated
_PROCESS = 600_000_000  # bytes of a process without weights: 0.50 to 0.56 GB were measured


@dataclass(frozen=True)
class Turn:
    """One measurement.

    Attributes:
        seconds: of a run. runs: of which it is the mean. foreign: share of the processors that others had.
        peak, resident: bytes of the process's memory, at the most during the run and after it.
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
        return self.foreign > FOREIGN_LIMIT


@dataclass
class Bench:
    """What all stages have in common; a context that ends its processes.

    Args:
        contenders: who is there, by name. folders: 'hf' and 'paddle' -> checkpoint folder. scratch: for outputs.
        rounds: of turns. tries: of a turn that is disturbed. least_seconds: of a turn; short runs are repeated.
        environment: of our own side. device: 'cpu', 'gpu' or None. needs: bytes of a part's weights as float32, by
            part. told: called before each turn.
    """

    contenders: Mapping[str, Contender]
    folders: Mapping[str, Path]
    scratch: Path
    rounds: int = 3
    tries: int = 3
    least_seconds: float = 0.5
    environment: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    needs: Mapping[str, int] = field(default_factory=dict)
    told: Callable[[str], None] = lambda what: None

    def __post_init__(self):
        self._workers: dict[str, Worker] = {}
        self._shared: tuple = ()  # what the processes that run were started for

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_error) -> None:
        self._end_all()

    def _end_all(self) -> None:
        while self._workers:
            self._workers.popitem()[1].end()

    def run(self, stage: Stage) -> tuple[list[Turn], dict[str, np.ndarray]]:
        """All turns of a stage, and the outputs of the first round by contender.

        Raises:
            ValueError: a contender failed.
        """
        names = [name for name in stage.contenders if name in self.contenders]
        if self._shared != (stage.part, names):
            self._end_all()
        self._shared = stage.part, names
        kept = self._fit(stage, names)
        turns: list[Turn] = []
        for number in range(self.rounds):
            for name in names:
                self.told(f"{stage.name}: {name}, round {number + 1} of {self.rounds}")
                turns.append(self._turn(stage, name, number))
                if not kept:
                    self._workers.pop(name).end()
        outputs = {name: np.load(file) for name in names if (file := self._output(name)).exists()}
        for name in names:
            self._output(name).unlink(missing_ok=True)
        return turns, outputs

    def _output(self, name: str) -> Path:
        return self.scratch / f"{name.replace(' ', '_')}.npy"

    def _fit(self, stage: Stage, names: list[str]) -> bool:
        """Whether all contenders' processes stay from round to round; else each is started anew for its turn."""
        if stage.kind in ("load", "cold"):
            return False
        # Ours loads a whole model, as users do.
        parts = [stage.part if self.contenders[name].side == "reference" or not stage.part else "all" for name in names]
        needed = sum(
            _PROCESS + self.needs.get(part, 0) * self.contenders[name].memory for name, part in zip(names, parts)
        )
        return bool(self._workers) or needed <= available_memory()

    def _turn(self, stage: Stage, name: str, number: int) -> Turn:
        """The least disturbed of some tries."""
        turns: list[Turn] = []
        for _ in range(self.tries):
            if stage.kind in ("load", "cold") and name in self._workers:
                self._workers.pop(name).end()
            loaded = None
            if name not in self._workers:
                self._workers[name], loaded = self._started(stage, self.contenders[name])
            if stage.kind == "load":
                figures = loaded
            else:
                figures = self._figures(stage, name, self._workers[name], save=number == 0 and not turns)
            if stage.kind == "cold":
                figures = _sum(loaded, figures)
            names = ("seconds", "runs", "foreign", "peak", "resident", "stored")
            turns.append(Turn(name, number, **{field: figures[field] for field in names}))
            if not turns[-1].disturbed:
                break
        return min(turns, key=lambda turn: turn.foreign)

    def _started(self, stage: Stage, contender: Contender) -> tuple[Worker, dict | None]:
        own = self.environment if contender.side == "ours" else {}
        worker = Worker(contender.side, {**own, **contender.environment}, self.device)
        try:
            worker.ask({"do": "ready"})
            if not stage.part:
                return worker, None
            order = {"folder": str(self.folders[contender.folder]), "part": stage.part, "options": contender.options}
            return worker, worker.ask({"do": "load", **order})
        except BaseException:
            worker.end()
            raise

    def _figures(self, stage: Stage, name: str, worker: Worker, save: bool) -> dict:
        cold = stage.kind == "cold"
        order = {"kind": "prefill" if cold else stage.kind, "numbers": stage.numbers, "cold": cold}
        saved = {"save": str(self._output(name))} if save else {}
        return worker.ask({"do": "run", **order, "least_seconds": self.least_seconds, **saved})


def _sum(loaded: dict, ran: dict) -> dict:
    """A load and the run behind it as one."""
    seconds = loaded["seconds"] + ran["seconds"]
    foreign = (loaded["foreign"] * loaded["seconds"] + ran["foreign"] * ran["seconds"]) / seconds
    return {**ran, "seconds": seconds, "foreign": foreign, "peak": max(loaded["peak"], ran["peak"])}


def available_memory() -> int:
    """Bytes that processes can still take without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/meminfo does not say how much memory is available; the benchmark runs on Linux")
