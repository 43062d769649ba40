"""Figures of a load test: percentiles of times, throughput, errors by status.

In: `Outcome`s. Out: a dict of numbers for JSON, and a table for people. Percentiles count from the good side: one in a
hundred is worse than p99, whether large or small values are bad.
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
    """p50, p95, p99, mean and worst of values; None without values.

    Args:
        values: to summarise.
        worst: 1 if large values are bad, -1 if small values are.
    """
    if not len(values):
        return None
    array = np.asarray(values, float) * worst
    points = np.percentile(array, _PERCENTILES) * worst
    quantiles = {f"p{p}": point for p, point in zip(_PERCENTILES, points)}
    return {
        name: round(float(v), 6)
        for name, v in {**quantiles, "mean": array.mean() * worst, "worst": array.max() * worst}.items()
    }


def times(outcomes: Sequence[Outcome]) -> dict:
    """Percentiles of answered requests: seconds, and tokens per second.

    Inter-token times lie between two chunks of text: a server sends one for each token that adds text.
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
    """All figures of a run; its seconds count from the first request's planned time to the end of the last answer."""
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

    result = Table("", *[f"p{p}" for p in _PERCENTILES], "mean", "worst", box=None)
    rows = {title: (figures[name], unit) for name, (title, unit) in _ROWS.items()}
    rows |= {f"first token, {kind}": (of["time_to_first_token"], "ms") for kind, of in figures["by_kind"].items()}
    for title, (values, unit) in rows.items():
        cells = [f"{1000 * v:.1f} {unit}" if unit else f"{v:.1f}" for v in values.values()] if values else ["-"] * 5
        result.add_row(title, *cells)
    return result
