"""How time and memory grow with the input: the exponent of every curve, and the bound it is held to.

In: a config.json whose layers are cut to a few, so that it ends in minutes: each layer keeps its published width. Out:
a dict for JSON, and a table. A bound says how the work itself grows; what grows faster does more than it must.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convert.folder import read_config
from paddle_internvl.bench.random_checkpoint import shallow, write_random
from paddle_internvl.bench.turns import FOREIGN_LIMIT
from paddle_internvl.bench.worker import Worker

LAYERS = 2
_TRIES = 3  # more of a point that others disturbed in every round


@dataclass(frozen=True)
class Curve:
    """A quantity that is doubled again and again.

    Args:
        over: the number of `kind` (a method of `ours.Ours`) that takes the values `at`; fixed: its other numbers.
        seconds, memory: the largest exponents, of time and of the memory a run takes above the loaded model.
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
    """The slope of the upper half of a curve on logarithmic scales: what does not grow hides growth in the lower."""
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
    told: Callable[[str], None] = lambda what: None,
) -> dict:
    """Measure curves, each point in a process of its own.

    Args:
        config: a config.json. layers: of each tower. rounds: of a point; the fastest counts. largest: leave out what
            lies above it. environment: variables of the processes. told: called before each point.
    Returns:
        `.model`, `.layers`, `.curves`: at, seconds, memory (bytes), exponents, bounds, how many points
        others disturbed, and whether each `holds`.
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
                told(f"{curve.title}: {x} {curve.name}")
                points.append(_point(folder, curve, x, rounds, environment))
            document["curves"].append(_figures(curve, at, points))
    return document


def _point(folder: Path, curve: Curve, x: int, rounds: int, environment) -> dict:
    with Worker("ours", environment) as worker:
        loaded = worker.ask({"do": "load", "folder": str(folder), "part": "all", "options": {}})
        order = {"do": "run", "kind": curve.kind, "numbers": {**curve.fixed, curve.over: x}, "least_seconds": 0.2}
        turns = [worker.ask(order) for _ in range(rounds)]
        while min(turn["foreign"] for turn in turns) > FOREIGN_LIMIT and len(turns) < rounds + _TRIES:
            turns.append(worker.ask(order))
    # Without mapped files: a longer prompt has more of the embedding's pages, which have nothing to do with growth.
    memory = max(turn["peak"] - turn["mapped"] for turn in turns) - (loaded["resident"] - loaded["mapped"])
    return {**min(turns, key=lambda turn: turn["seconds"]), "memory": max(memory, 1)}


def _figures(curve: Curve, at: list[int], points: list[dict]) -> dict:
    made = {
        "name": curve.name,
        "curve": curve.title,
        "over": curve.name,
        "numbers": curve.fixed,
        "at": at,
        "seconds": [round(point["seconds"], 6) for point in points],
        "memory": [point["memory"] for point in points],
        "foreign": [round(point["foreign"], 3) for point in points],
    }
    for what in ("seconds", "memory"):
        made[f"{what} exponent"] = round(exponent(at, made[what]), 3)
        made[f"{what} bound"] = getattr(curve, what)
    made["disturbed"] = sum(foreign > FOREIGN_LIMIT for foreign in made["foreign"])
    made["holds"] = all(made[f"{what} exponent"] <= made[f"{what} bound"] for what in ("seconds", "memory"))
    return made


def table(document: Mapping):
    """A `rich` table of the curves."""
    from rich.table import Table

    shown = Table("", "at", "time", "exponent", "bound", "memory", "exponent", "bound", "", box=None)
    for curve in document["curves"]:
        for i, x in enumerate(curve["at"]):
            last = i == len(curve["at"]) - 1
            cells = [curve["curve"] if i == 0 else "", f"{x} {curve['over']}"]
            for what, cell in (("seconds", f"{1000 * curve['seconds'][i]:.1f} ms"),
                               ("memory", f"{curve['memory'][i] / 1e6:.0f} MB")):  # fmt: skip
                fitted = [f"{curve[f'{what} exponent']:.2f}", f"<= {curve[f'{what} bound']:.1f}"] if last else ["", ""]
                cells += [cell, *fitted]
            cells[2] += " *" if curve["foreign"][i] > FOREIGN_LIMIT else ""
            shown.add_row(*cells, "" if curve["holds"] or not last else "grows too fast")
    return shown
