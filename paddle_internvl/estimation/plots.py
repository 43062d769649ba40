"""Plot of estimates: a bar for each plan, its parts beside each other, lines at the memories of cards.

In: a config.json's dict and a plan. Out: a picture file. Needs matplotlib (the extra `plots`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from convert.quant_config import declared_quantization
from paddle_internvl import plotting
from paddle_internvl.estimation.memory import estimate
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.parallel.shards import ShardPlan

CARDS = (16, 24, 32, 48, 80)  # GiB of usual cards
_MAX_CARDS = 8  # of the plot, where fewer are there
_GB = 1 << 30


def rows_of(config: Mapping, plan: Plan, gpus: int = 1) -> list[tuple[str, dict[str, int]]]:
    """Estimates of a plan over the possible tensor-parallel degrees and bits.

    Args:
        config: an InternVL's config.json, in upstream's spelling.
        plan: the workload; its degree and bits are varied.
        gpus: cards there are; degrees up to eight are shown where there are fewer.
    Returns:
        The label of each row, and its parts in bytes.
    """
    possible = ShardPlan.of(config["llm_config"], 0, 1).possible_sizes
    degrees = [n for n in possible if n <= max(gpus, _MAX_CARDS)] if plan.device == "gpu" else [1]
    bits = (plan.bits,) if plan.bits or declared_quantization(config) else (None, 8, 4)
    rows = []
    for degree in degrees:
        for width in bits:
            label = f"{width} bits" if width else plan.dtype
            cards = f"{degree} card{'s' * (degree > 1)}, " if plan.device == "gpu" else ""
            rows.append((cards + label, asdict(estimate(config, replace(plan, tp=degree, bits=width)))))
    return rows


def draw(rows: Sequence[tuple[str, Mapping[str, int]]], title: str, room: int | None, file: Path) -> None:
    """Draw rows as stacked bars in GiB.

    Args:
        rows: label and parts of each bar, in bytes; see `rows_of`.
        title: of the plot.
        room: memory of a card, whose line is drawn; None: lines at the memories of usual cards.
        file: its ending selects the format.
    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = plotting.new_figure(9, 1.6 + 0.3 * len(rows))
    axes, labels = figure.add_subplot(), [label for label, _ in rows]
    places, left = range(len(rows)), [0.0] * len(rows)
    parts = [name for name in rows[0][1] if any(row[name] for _, row in rows)]
    for name, color in zip(parts, plotting.SERIES):
        values = [row[name] / _GB for _, row in rows]
        axes.barh(places, values, left=left, color=color, label=name.replace("_", " "))
        left = [start + value for start, value in zip(left, values)]
    limits = [room / _GB] if room else [size for size in CARDS if size < 1.1 * max(left)]
    for size in limits:
        axes.axvline(size, color=plotting.DARK, linewidth=0.8, linestyle="--")
        axes.annotate(f"{size:g}", (size, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    for place, total in zip(places, left):
        axes.text(total, place, f" {total:.1f}", va="center", fontsize=8)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel("GiB on each device (dashed: memory of a card)")
    axes.set_title(title, pad=16, parse_math=False)
    axes.margins(x=0.08)
    figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
    plotting.save(figure, file)
