"""Growth of time and memory with the input: the exponent of every curve, and its bound.

In: a config.json, reduced to a few layers of their published width, so that a run takes minutes. Out: a dict for JSON,
and a table. A bound is the growth of the work itself: a curve above it does unnecessary work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convert.folder import read_config
from paddle_internvl.bench.random_checkpoint import shallow, write_random
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
    """

    name: str
    title: str
    kind: str
    over: str
    at: tuple[int, ...]
    seconds: float
    memory: float
    fixed: dict = field(default_factory=dict)


CURVES = (
    # At most 16 tiles are in the tower at once: from there on memory holds pixels and visual tokens only.
    Curve("tiles", "visual tokens of a picture", "features", "tiles", (1, 2, 4, 8, 16, 24), 1.1, 1.1),
    # Linear layers grow with the length, attention with its square; scores are never in memory as a whole.
    Curve("prompt", "prefill", "prefill", "length", (256, 512, 1024, 2048, 4096, 8192), 2.0, 1.2),
    Curve("context", "decode steps", "decode", "length", (256, 512, 1024, 2048, 4096, 8192), 1.0, 1.2, {"tokens": 16}),
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
    environment: Mapping[str, str] | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measure curves, each point in a process of its own.

    Args:
        config: a config.json.
        layers: of each tower.
        rounds: trials of a point; the fastest counts.
        curves: to measure.
        largest: leave out points above.
        environment: variables of the processes.
        on_progress: called with a line before each point.
    Returns:
        'model', 'layers', 'curves': values, seconds, memory (bytes), exponents, bounds, the number of disturbed points,
        and whether each curve 'holds' its bounds.
    Raises:
        ValueError: fewer than three points are left of a curve, or a process failed.
    """
    document = {"benchmark": "growth", "model": config.stem, "layers": layers, "rounds": rounds, "curves": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_random(Path(scratch) / "hf", shallow(read_config(config), layers))
        for curve in curves:
            at = [x for x in curve.at if largest is None or x <= largest]
            if len(at) < 3:
                raise ValueError(f"three points make a curve, and {curve.name} has {len(at)} up to {largest}")
            points = []
            for x in at:
                on_progress(f"{curve.title}: {x} {curve.name}")
                points.append(_point(folder, curve, x, rounds, environment))
            document["curves"].append(summary(curve, at, points))
    return document


def _point(folder: Path, curve: Curve, x: int, rounds: int, environment) -> dict:
    with Worker("ours", environment) as worker:
        loaded = worker.send({"command": "load", "folder": str(folder), "part": "all", "options": {}})
        numbers = {**curve.fixed, curve.over: x}
        command = {"command": "run", "kind": curve.kind, "numbers": numbers, "least_seconds": 0.2}
        trials = [worker.send(command) for _ in range(rounds)]
        while min(trial["foreign"] for trial in trials) > FOREIGN_LIMIT and len(trials) < rounds + _TRIES:
            trials.append(worker.send(command))
    # Without mapped files: a longer prompt touches more pages of the embedding, which is no growth of a run.
    memory = max(trial["peak"] - trial["mapped"] for trial in trials) - (loaded["resident"] - loaded["mapped"])
    return {**min(trials, key=lambda trial: trial["seconds"]), "memory": max(memory, 1)}


def summary(curve: Curve, at: list[int], points: list[dict]) -> dict:
    """Figures of one curve: exponents, bounds, and whether they hold."""
    figures = {
        "name": curve.name,
        "curve": curve.title,
        "over": curve.name,
        "numbers": curve.fixed,
        "at": at,
        "seconds": [round(point["seconds"], 6) for point in points],
        "memory": [point["memory"] for point in points],
        "foreign": [round(point["foreign"], 3) for point in points],
    }
    for quantity in _QUANTITIES:
        figures[f"{quantity} exponent"] = round(exponent(at, figures[quantity]), 3)
        figures[f"{quantity} bound"] = getattr(curve, quantity)
    figures["disturbed"] = sum(foreign > FOREIGN_LIMIT for foreign in figures["foreign"])
    figures["holds"] = all(figures[f"{q} exponent"] <= figures[f"{q} bound"] for q in _QUANTITIES)
    return figures


def table(document: Mapping):
    """A `rich` table of the curves."""
    from rich.table import Table

    result = Table("", "at", "time", "exponent", "bound", "memory", "exponent", "bound", "", box=None)
    for curve in document["curves"]:
        for i, x in enumerate(curve["at"]):
            last = i == len(curve["at"]) - 1
            cells = [curve["curve"] if i == 0 else "", f"{x} {curve['over']}"]
            shown = (f"{1000 * curve['seconds'][i]:.1f} ms", f"{curve['memory'][i] / 1e6:.0f} MB")
            for name, cell in zip(_QUANTITIES, shown):
                fitted = [f"{curve[f'{name} exponent']:.2f}", f"<= {curve[f'{name} bound']:.1f}"] if last else ["", ""]
                cells += [cell, *fitted]
            cells[2] += " *" if curve["foreign"][i] > FOREIGN_LIMIT else ""
            result.add_row(*cells, "" if curve["holds"] or not last else "grows too fast")
    return result
