"""Figures of trials: medians, ratios to torch, errors, shares of the machine's peaks.

In: trials and outputs of a stage. Out: a dict for JSON, and a table for people. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from paddle_internvl.bench.stages import CONTENDERS, TORCH, Stage
from paddle_internvl.bench.trials import Trial
from paddle_internvl.bench.work import Costs, Work


def error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Error of an output: max|a - b| / max|b|; of integers the share that differs.

    Raises:
        ValueError: the shapes differ.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"one side made {list(ours.shape)}, the other {list(reference.shape)}")
    if np.issubdtype(reference.dtype, np.integer):
        return float((ours.astype(np.int64) != reference).mean())
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def work_of(stage: Stage, costs: Costs) -> Work | None:
    """Work of one run of a stage, or of one decode step; None: `Costs` has no such kind."""
    numbers = {name: value for name, value in stage.numbers.items() if name != "tokens"}
    if stage.kind not in ("vision", "projector", "prefill", "decode"):
        return None
    return getattr(costs, stage.kind)(**numbers)


def summary(
    stage: Stage, trials: Sequence[Trial], outputs: Mapping[str, np.ndarray], costs: Costs, peaks: Mapping[str, float]
) -> dict:
    """All figures of a stage.

    Args:
        stage: the stage.
        trials: all of its trials.
        outputs: contender -> output of its first round.
        costs: work of the model's stages.
        peaks: 'flops' and 'bandwidth' of the machine, a second; empty: no shares.
    Returns:
        Name, numbers, and for each contender: 'seconds' of each trial (per token where the stage counts tokens), their
        'median' without disturbed trials (of all where 'calm' is 0), ratios and goals, error, memory, shares of peaks.
    """
    divisor = stage.numbers.get("tokens", 1) if stage.per == "token" else 1
    work = work_of(stage, costs) if peaks else None
    rows: dict[str, dict] = {}
    for name in dict.fromkeys(trial.contender for trial in trials):
        mine = [trial for trial in trials if trial.contender == name]
        seconds = [trial.seconds / divisor for trial in mine]
        calm = [trial.seconds / divisor for trial in mine if not trial.disturbed]
        row = rows[name] = {
            "seconds": [round(s, 6) for s in seconds],
            "median": round(median(calm or seconds), 6),
            "calm": len(calm),
            "foreign": [round(trial.foreign, 3) for trial in mine],
            "peak": max(trial.peak for trial in mine),
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
    result = Table(*titles, box=None)
    for stage in document["stages"]:
        first = stage["stage"]
        for name, row in stage["contenders"].items():
            shares = [row.get(f"{peak} share") for peak in ("flops", "bandwidth")]
            result.add_row(
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
    return result


def disturbed(document: Mapping) -> int:
    """Number of medians that rest on disturbed trials alone."""
    return sum(not row["calm"] for stage in document["stages"] for row in stage["contenders"].values())


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _ratio(row: Mapping, role: str) -> str:
    ratio = row.get(f"of {role}")
    if ratio is None:
        return ""
    goal = row[f"goal of {role}"]
    return f"{ratio:.2f}" + (f" (goal {goal:.2f})" if goal else "")
