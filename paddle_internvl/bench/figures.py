"""Figures of trials: medians, ratios to torch and to rivals, errors, shares of the machine's peaks.

In: trials and outputs of a stage. Out: a dict for JSON, and a table for people. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from paddle_internvl.bench.stages import CONTENDERS, OPENVINO, OURS, TORCH, Stage
from paddle_internvl.bench.trials import Trial
from paddle_internvl.bench.work import Costs, Work

_BY_BITS = {32: "float32", 16: "bfloat16", 8: "int8", 4: "int4"}
_PEAKS = {"bfloat16": ("AMX bfloat16", "bfloat16"), "int8": ("AMX int8", "int8"), "int4": ("AMX int8", "int8")}
_SPLIT = 3  # products of bfloat16 that a float32 one is on AMX tiles (csrc/split_rows.h)
_LARGEST_ERROR = {"float32": 1e-3, "bfloat16": 0.05, "int8": 0.4, "int4": 1.0}  # of a rival; random weights


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


def work_of(kind: str, numbers: Mapping, costs: Costs) -> Work | None:
    """Work of one run of a kind of stage, or of one decode step; None: `Costs` has no such kind."""
    if kind not in ("vision", "projector", "prefill", "decode"):
        return None
    return getattr(costs, kind)(**{name: value for name, value in numbers.items() if name != "tokens"})


def precision(stage: Stage, name: str, stored: int) -> str:
    """The precision that a contender of a stage is ranked in: that of the weights it reads where it decodes.

    Args:
        stage: the stage.
        name: of the contender.
        stored: bits of a float weight.
    """
    contender = CONTENDERS[name]
    return _BY_BITS[contender.bits or stored] if stage.kind == "decode" else contender.precision


def fastest_rival(name: str, rows: Mapping[str, Mapping]) -> str | None:
    """The fastest contender of the other sides at the same precision; None: there is none."""
    rivals = [
        rival
        for rival, row in rows.items()
        if CONTENDERS[rival].side != "ours" and row["precision"] == rows[name]["precision"]
    ]
    return min(rivals, key=lambda rival: rows[rival]["median"], default=None)


def summary(
    stage: Stage, trials: Sequence[Trial], outputs: Mapping[str, np.ndarray], costs: Costs, peaks: Mapping[str, float]
) -> dict:
    """All figures of a stage.

    Args:
        stage: the stage.
        trials: all of its trials.
        outputs: contender -> output of its first round.
        costs: work of the model's stages.
        peaks: of the machine, see `machine.peaks`; empty: no shares.
    Returns:
        Name, numbers, and for each contender: 'seconds' of each trial (per token where the stage counts tokens), their
        'median' without disturbed trials (of all where 'calm' is 0), ratios and goals, error, memory, shares of peaks.
    Raises:
        ValueError: a rival's output is another one than that of the reference, so that its time is of other work.
    """
    divisor = stage.numbers.get("tokens", 1) if stage.per == "token" else 1
    reference = next((name for name in (TORCH, OPENVINO["float32"], OURS) if name in outputs), None)
    rows: dict[str, dict] = {}
    for name in dict.fromkeys(trial.contender for trial in trials):
        mine = [trial for trial in trials if trial.contender == name]
        seconds = [trial.seconds / divisor for trial in mine]
        calm = [trial.seconds / divisor for trial in mine if not trial.disturbed]
        row = rows[name] = {
            "seconds": [round(s, 6) for s in seconds],
            "median": round(median(calm or seconds), 6),
            "precision": precision(stage, name, mine[-1].stored),
            "calm": len(calm),
            "foreign": [round(trial.foreign, 3) for trial in mine],
            "peak": max(trial.peak for trial in mine),
            "resident": mine[-1].resident,
            "bits": CONTENDERS[name].bits or mine[-1].stored,
        }
        if name in outputs and reference not in (name, None):
            row["error"] = error(outputs[name], outputs[reference])
            _check(stage, name, reference, row["error"])
    for name, row in rows.items():
        row["rival"] = fastest_rival(name, rows) if CONTENDERS[name].side == "ours" else None
        goals = dict(zip(("torch", "rival"), stage.goals.get(name, (None, None))))
        for role, rival in (("torch", TORCH), ("rival", row["rival"])):
            if rival in rows and rival != name:
                row[f"of {role}"] = round(row["median"] / rows[rival]["median"], 4)
                row[f"goal of {role}"] = goals[role]
    made = {"stage": stage.name, "kind": stage.kind, "numbers": stage.numbers, "per": stage.per, "contenders": rows}
    add_shares(made, costs, peaks)
    return made


def add_shares(summary: dict, costs: Costs, peaks: Mapping[str, float]) -> None:
    """Add to the rows of a stage the shares of the machine's peaks, if there are peaks and `Costs` has the kind.

    Args:
        summary: of a stage, changed in place.
        costs: work of the model's stages.
        peaks: of the machine, see `machine.peaks`.
    """
    work = work_of(summary["kind"], summary["numbers"], costs) if peaks else None
    if work is None:
        return
    for name, row in summary["contenders"].items():
        row["flops share"] = round(work.flops / row["median"] / _peak(CONTENDERS[name].precision, peaks), 4)
        row["bandwidth share"] = round(work.bytes(row["bits"]) / row["median"] / peaks["bandwidth"], 4)


def _peak(kind: str, peaks: Mapping[str, float]) -> float:
    """Operations a second that the machine reaches at a precision, by the fastest of its instructions."""
    split = peaks.get("AMX bfloat16", 0) / _SPLIT
    return max([peaks["flops"], split, *(peaks[name] for name in _PEAKS.get(kind, ()) if name in peaks)])


def _check(stage: Stage, name: str, reference: str, difference: float) -> None:
    largest = _LARGEST_ERROR[CONTENDERS[name].precision]
    if CONTENDERS[name].side != "ours" and not difference <= largest:
        raise ValueError(
            f"{name} computes something else than {reference} in {stage.name}: its error is {difference:.2g}, the "
            f"largest that {CONTENDERS[name].precision} explains {largest:.2g}"
        )


def table(document: Mapping):
    """A `rich` table of a benchmark's document."""
    from rich.table import Table

    titles = ("stage", "", "median", "/ torch", "/ best rival", "error", "peak memory", "FLOP/s, bytes/s of peak")
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
                _ratio(row, "rival") + (f" {row['rival']}" if row.get("rival") else ""),
                f"{row['error']:.1e}" if row.get("error") is not None else "",
                f"{row['peak'] / 1e9:.2f} GB" if row["peak"] else "",
                ", ".join(f"{100 * share:.0f} %" for share in shares if share is not None),
            )
            first = ""
        for name, instructions in stage.get("lacking", {}).items():
            result.add_row("", name, f"lacks {instructions}")
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
