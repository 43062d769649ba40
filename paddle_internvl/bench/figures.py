"""Turns to figures: medians, ratios to torch, errors, shares of what the machine can do.

In: turns and outputs of a stage. Out: a dict for JSON, and a table for people. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from paddle_internvl.bench.stages import CONTENDERS, TORCH, Stage
from paddle_internvl.bench.turns import Turn
from paddle_internvl.bench.work import Costs, Work


def error(ours: np.ndarray, reference: np.ndarray) -> float:
    """max|a - b| / max|b|; of integers the share that differs.

    Raises:
        ValueError: the shapes differ: the two did not do the same.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"one side made {list(ours.shape)}, the other {list(reference.shape)}")
    if np.issubdtype(reference.dtype, np.integer):
        return float((ours.astype(np.int64) != reference).mean())
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def work_of(stage: Stage, costs: Costs) -> Work | None:
    """The least work of one run of a stage, or of one token where it is counted by tokens; None: it has none that is
    known."""
    numbers = {name: value for name, value in stage.numbers.items() if name != "tokens"}
    if stage.kind not in ("vision", "projector", "prefill", "decode"):
        return None
    return getattr(costs, stage.kind)(**numbers)


def summary(
    stage: Stage, turns: Sequence[Turn], outputs: Mapping[str, np.ndarray], costs: Costs, peaks: Mapping[str, float]
) -> dict:
    """All figures of a stage.

    Args:
        peaks: 'flops' and 'bandwidth' of the machine, a second.
    Returns:
        name, numbers, and by contender: seconds of each turn (of a token where the stage says so), the median of those
        that nobody disturbed or, where `calm` is 0, of all,
        ratios and goals, error, memory, shares of the machine's peaks.
    """
    divisor = stage.numbers.get("tokens", 1) if stage.per == "token" else 1
    work = work_of(stage, costs)
    rows: dict[str, dict] = {}
    for name in dict.fromkeys(turn.contender for turn in turns):
        mine = [turn for turn in turns if turn.contender == name]
        seconds = [turn.seconds / divisor for turn in mine]
        calm = [turn.seconds / divisor for turn in mine if not turn.disturbed]
        row = rows[name] = {
            "seconds": [round(s, 6) for s in seconds],
            "median": round(median(calm or seconds), 6),
            "calm": len(calm),
            "foreign": [round(turn.foreign, 3) for turn in mine],
            "peak": max(turn.peak for turn in mine),
            "resident": mine[-1].resident,
        }
        if work is not None:
            row["flops share"] = round(work.flops / row["median"] / peaks["flops"], 4)
            bits = CONTENDERS[name].bits or mine[-1].stored
            row["bandwidth share"] = round(work.bytes(bits) / row["median"] / peaks["bandwidth"], 4)
        if name != TORCH and name in outputs and TORCH in outputs:
            row["error"] = error(outputs[name], outputs[TORCH])
    for name, row in rows.items():
        rivals = {"torch": TORCH, "rival": CONTENDERS[name].rival}
        goals = dict(zip(rivals, stage.goals.get(name, (None, None))))
        for role, rival in rivals.items():
            if rival in rows and rival != name:
                row[f"of {role}"] = round(row["median"] / rows[rival]["median"], 4)
                row[f"goal of {role}"] = goals[role]
        row["rival"] = rivals["rival"] if rivals["rival"] in rows else None
    return {"stage": stage.name, "kind": stage.kind, "numbers": stage.numbers, "per": stage.per, "contenders": rows}


def table(document: Mapping):
    """A `rich` table of a benchmark's document."""
    from rich.table import Table

    titles = ("stage", "", "median", "/ torch", "/ rival", "error", "peak memory", "FLOP/s, bytes/s of peak")
    shown = Table(*titles, box=None)
    for stage in document["stages"]:
        first = stage["stage"]
        for name, row in stage["contenders"].items():
            shares = [row.get(f"{what} share") for what in ("flops", "bandwidth")]
            shown.add_row(
                first,
                name,
                _time(row["median"]) + ("/token" if stage["per"] else "") + ("" if row["calm"] else " *"),
                _ratio(row, "torch"),
                _ratio(row, "rival"),
                f"{row['error']:.1e}" if row.get("error") is not None else "",
                f"{row['peak'] / 1e9:.2f} GB" if row["peak"] else "",
                ", ".join(f"{100 * share:.0f} %" for share in shares if share is not None),
            )
            first = ""
    return shown


def disturbed(document: Mapping) -> int:
    """Medians that rest on disturbed turns alone."""
    return sum(not row["calm"] for stage in document["stages"] for row in stage["contenders"].values())


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _ratio(row: Mapping, role: str) -> str:
    ratio = row.get(f"of {role}")
    if ratio is None:
        return ""
    goal = row[f"goal of {role}"]
    return f"{ratio:.2f}" + (f" (goal {goal:.2f})" if goal else "")
