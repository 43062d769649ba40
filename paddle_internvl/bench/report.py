"""Outcomes to figures: percentiles of times, throughput, errors by status.

In: `Outcome`s. Out: a dict of numbers for JSON, and a table for people. Every percentile is of the bad side: at p99 one
in a hundred is worse, be it slower to begin or slower in going on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from paddle_internvl.bench.load import OK, Outcome

_PERCENTILES = (50, 95, 99)
# name in the report -> (title, unit)
_ROWS = {
    "time_to_first_token": ("time to first token", "ms"),
    "inter_token": ("inter-token time", "ms"),
    "latency": ("whole answer", "ms"),
    "answer_tokens_per_second": ("tokens/s of an answer", ""),
    "late": ("sent late", "ms"),
}


def percentiles(values: Sequence[float], worst: int = 1) -> dict[str, float] | None:
    """p50, p95, p99, mean and worst; None: there are no values.

    Args:
        worst: 1: large values are bad; -1: small ones are.
    """
    if not len(values):
        return None
    array = np.asarray(values, float) * worst
    points = np.percentile(array, _PERCENTILES) * worst
    shown = {f"p{p}": point for p, point in zip(_PERCENTILES, points)}
    return {
        name: round(float(v), 6)
        for name, v in {**shown, "mean": array.mean() * worst, "worst": array.max() * worst}.items()
    }


def times(outcomes: Sequence[Outcome]) -> dict:
    """Percentiles over outcomes that went well: seconds, and tokens per second.

    Inter-token times are those between two chunks of text: servers send one for each token that has text of its own.
    """
    good = [outcome for outcome in outcomes if outcome.status == OK]
    gaps = [gap for outcome in good for gap in np.diff(outcome.chunks)]
    return {
        "time_to_first_token": percentiles([outcome.chunks[0] for outcome in good if outcome.chunks]),
        "inter_token": percentiles(gaps),
        "latency": percentiles([outcome.ended for outcome in good]),
        "answer_tokens_per_second": percentiles([o.tokens / o.ended for o in good if o.tokens], worst=-1),
    }


def summary(outcomes: Sequence[Outcome]) -> dict:
    """All figures of a run, as JSON has them. Seconds, from the first request's time to the last answer's end."""
    good = [outcome for outcome in outcomes if outcome.status == OK]
    seconds = max(outcome.due + outcome.ended for outcome in outcomes) - min(outcome.due for outcome in outcomes)
    by_kind = {kind: [o for o in outcomes if o.kind == kind] for kind in sorted({o.kind for o in outcomes})}
    return {
        "requests": len(outcomes),
        "answered": len(good),
        "seconds": round(seconds, 3),
        "requests_per_second": round(len(good) / seconds, 3),
        "prompt_tokens_per_second": round(sum(o.prompt_tokens for o in good) / seconds, 3),
        "output_tokens_per_second": round(sum(o.tokens for o in good) / seconds, 3),
        "errors": dict(sorted(Counter(o.status for o in outcomes if o.status != OK).items())),
        **times(outcomes),
        "late": percentiles([outcome.late for outcome in outcomes]),
        "by_kind": {
            kind: {
                "requests": len(some),
                "answered": sum(o.status == OK for o in some),
                "time_to_first_token": times(some)["time_to_first_token"],
            }
            for kind, some in by_kind.items()
        },
    }


def table(figures: dict):
    """A `rich` table of a summary."""
    from rich.table import Table

    shown = Table("", *[f"p{p}" for p in _PERCENTILES], "mean", "worst", box=None)
    rows = {title: (figures[name], unit) for name, (title, unit) in _ROWS.items()}
    rows |= {f"first token, {kind}": (of["time_to_first_token"], "ms") for kind, of in figures["by_kind"].items()}
    for title, (values, unit) in rows.items():
        cells = [f"{1000 * v:.1f} {unit}" if unit else f"{v:.1f}" for v in values.values()] if values else ["-"] * 5
        shown.add_row(title, *cells)
    return shown
