"""Growth of time and memory with the input: the exponent of every curve, and its bound.

In: a config.json, reduced to a few layers of their published width, so that a run takes minutes. Out: a dict for JSON,
and a table. A bound is the growth of the work itself: a curve above it does unnecessary work. Prompts and contexts may
be measured beside llama.cpp.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convert.folder import read_config
from paddle_internvl.bench import machine, rivals
from paddle_internvl.bench.model import KERNELS, lacking_instructions
from paddle_internvl.bench.random_checkpoint import shallow, write_random
from paddle_internvl.bench.stages import BFLOAT16, CONTENDERS, INT4, INT8, LLAMA, OURS, Contender
from paddle_internvl.bench.trials import FOREIGN_LIMIT
from paddle_internvl.bench.worker import Worker

LAYERS = 2
_QUANTITIES = ("seconds", "memory")
_TRIES = 3  # further trials of a point that was disturbed in every round


@dataclass(frozen=True)
class Curve:
    """Measurements over one growing number.

    Attributes:
        name: of the curve, on the command line.
        title: of the curve, in tables.
        kind: of work, a method of `ours.Ours`.
        over: the argument of `kind` that grows.
        at: its values.
        seconds: bound of the exponent of time.
        memory: bound of the exponent of a run's memory, without the loaded model.
        fixed: the other arguments of `kind`.
        beside: contenders of `stages.CONTENDERS` that are measured too, where a rival takes part.
    """

    name: str
    title: str
    kind: str
    over: str
    at: tuple[int, ...]
    seconds: float
    memory: float
    fixed: dict = field(default_factory=dict)
    beside: tuple[str, ...] = ()


_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 32768)  # positions
CURVES = (
    # At most 16 tiles are in the tower at once: from there on memory holds pixels and visual tokens only.
    Curve("tiles", "visual tokens of a picture", "features", "tiles", (1, 2, 4, 8, 16, 24), 1.1, 1.1),
    # Linear layers grow with the length, attention with its square; scores are never in memory as a whole.
    Curve("prompt", "prefill", "prefill", "length", _LENGTHS, 2.0, 1.2, beside=(BFLOAT16, LLAMA["bf16"])),
    Curve("context", "decode steps", "decode", "length", _LENGTHS, 1.0, 1.2, {"tokens": 16},
          (LLAMA["bf16"], INT8, LLAMA["q8_0"], INT4, LLAMA["q4_0"])),
    Curve("batch", "decode steps of several rows", "decode", "batch", (1, 2, 4, 8, 16), 1.0, 1.2,
          {"tokens": 16, "length": 512}),
    # A tile and its tokens a frame: the tower is linear in them, attention in the decoder is not.
    Curve("frames", "first token about a clip", "clip", "frames", (1, 2, 4, 8, 16), 1.5, 1.2,
          {"width": 640, "height": 480}),
)  # fmt: skip


def exponent(at: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the upper half of a curve on logarithmic scales; constant costs hide growth in the lower half."""
    kept = max(3, -(-len(at) // 2))
    return float(np.polyfit(np.log(at[-kept:]), np.log(values[-kept:]), 1)[0])


def measure(
    config: Path,
    *,
    layers: int = LAYERS,
    rounds: int = 3,
    curves: Sequence[Curve] = CURVES,
    largest: int | None = None,
    interpreters: Mapping[str, str] | None = None,
    kernels: bool = True,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measure curves, each point in a process of its own.

    Args:
        config: a config.json.
        layers: of each tower.
        rounds: trials of a point; the fastest counts.
        curves: to measure.
        largest: leave out points above.
        interpreters: rival -> its Python interpreter, see `rivals.interpreters`; None: no rivals. Only llama.cpp runs.
        kernels: False runs our side without its C++ operators.
        on_progress: called with a line before each point.
    Returns:
        'model', 'layers', 'curves': values, seconds, memory (bytes), exponents, bounds, the number of disturbed points,
        whether each curve 'holds' its bounds, and 'beside', contender -> its seconds, memory and exponents.
    Raises:
        ValueError: fewer than three points are left of a curve, or a process failed.
    """
    interpreters = dict(interpreters or {})
    document = {"benchmark": "growth", "model": config.stem, "layers": layers, "rounds": rounds, "curves": []}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"hf": write_random(Path(scratch) / "hf", shallow(read_config(config), layers))}
        if "llama.cpp" in interpreters and any(curve.beside for curve in curves):
            python = interpreters["llama.cpp"]
            folders["gguf"] = rivals.write_gguf(python, folders["hf"], Path(scratch) / "gguf", [*LLAMA])
        for curve in curves:
            at = [x for x in curve.at if largest is None or x <= largest]
            if len(at) < 3:
                raise ValueError(f"three points make a curve, and {curve.name} has {len(at)} up to {largest}")
            series = {}
            for name, contender in _contenders(curve, folders, kernels).items():
                series[name] = []
                for x in at:
                    on_progress(f"{curve.title}, {name}: {x} {curve.name}")
                    python = interpreters.get(contender.side, sys.executable)
                    series[name].append(_point(folders, contender, python, curve, x, rounds, kernels))
            document["curves"].append(summary(curve, at, series.pop(OURS), series))
    return document


def _contenders(curve: Curve, folders: Mapping[str, Path], kernels: bool) -> dict[str, Contender]:
    """Ours, and where GGUF files are there, the contenders beside it whose instructions this machine has."""
    beside = curve.beside if "gguf" in folders else ()
    contenders = {name: CONTENDERS[name] for name in (OURS, *beside)}
    lacking = lacking_instructions(contenders, machine.describe()["instruction sets"], kernels)
    return {name: contender for name, contender in contenders.items() if name not in lacking}


def _point(folders, contender: Contender, python: str, curve: Curve, x: int, rounds: int, kernels: bool) -> dict:
    variables = {**contender.environment, **({} if kernels else {KERNELS: "off"})}
    with Worker(contender.side, variables, python=python) as worker:
        folder = folders[contender.folder]
        loaded = worker.send({"command": "load", "folder": str(folder), "part": "all", "options": contender.options})
        numbers = {**curve.fixed, curve.over: x}
        command = {"command": "run", "kind": curve.kind, "numbers": numbers, "least_seconds": 0.2}
        trials = [worker.send(command) for _ in range(rounds)]
        while min(trial["foreign"] for trial in trials) > FOREIGN_LIMIT and len(trials) < rounds + _TRIES:
            trials.append(worker.send(command))
    # Without mapped files: a longer prompt touches more pages of the embedding, which is no growth of a run.
    memory = max(trial["peak"] - trial["mapped"] for trial in trials) - (loaded["resident"] - loaded["mapped"])
    return {**min(trials, key=lambda trial: trial["seconds"]), "memory": max(memory, 1)}


def summary(curve: Curve, at: list[int], points: list[dict], beside: Mapping[str, list[dict]] | None = None) -> dict:
    """Figures of one curve: exponents, bounds, whether they hold, and the contenders beside it."""
    figures = {
        "name": curve.name,
        "curve": curve.title,
        "over": curve.name,
        "numbers": curve.fixed,
        "at": at,
        **_series(at, points),
        **{f"{quantity} bound": getattr(curve, quantity) for quantity in _QUANTITIES},
        "beside": {name: _series(at, theirs) for name, theirs in (beside or {}).items()},
    }
    figures["holds"] = all(figures[f"{q} exponent"] <= figures[f"{q} bound"] for q in _QUANTITIES)
    return figures


def _series(at: list[int], points: list[dict]) -> dict:
    """Times, memory, their exponents, and foreign shares of one contender's points."""
    series = {
        "seconds": [round(point["seconds"], 6) for point in points],
        "memory": [point["memory"] for point in points],
        "foreign": [round(point["foreign"], 3) for point in points],
    }
    series |= {f"{quantity} exponent": round(exponent(at, series[quantity]), 3) for quantity in _QUANTITIES}
    series["disturbed"] = sum(foreign > FOREIGN_LIMIT for foreign in series["foreign"])
    return series


def table(document: Mapping):
    """A `rich` table of the curves."""
    from rich.table import Table

    result = Table("", "at", "time", "exponent", "bound", "memory", "exponent", "bound", "", box=None)
    for curve in document["curves"]:
        for name, series in {curve["curve"]: curve, **curve["beside"]}.items():
            for i, x in enumerate(curve["at"]):
                last = i == len(curve["at"]) - 1
                shown = (f"{1000 * series['seconds'][i]:.1f} ms", f"{series['memory'][i] / 1e6:.0f} MB")
                cells = [name if i == 0 else "", f"{x} {curve['over']}"]
                for quantity, cell in zip(_QUANTITIES, shown):
                    fitted = [f"{series[f'{quantity} exponent']:.2f}", _bound(series, quantity)] if last else ["", ""]
                    cells += [cell, *fitted]
                cells[2] += " *" if series["foreign"][i] > FOREIGN_LIMIT else ""
                result.add_row(*cells, "" if series.get("holds", True) or not last else "grows too fast")
    return result


def _bound(series: Mapping, quantity: str) -> str:
    """The bound of an exponent; a contender beside ours has none."""
    return f"<= {series[f'{quantity} bound']:.1f}" if f"{quantity} bound" in series else ""
