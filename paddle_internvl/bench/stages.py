"""Stages and contenders of the model benchmark, as two tables.

A `Stage` is a kind of work (a method of `ours.Ours` and `reference.Reference`) with its arguments; a `Contender` is a
side with the options of its loading. Neighbouring stages of the same part and contenders share processes, the smallest
stage first, so that each stage's peak of memory is its own. Goals are the project's ratios for InternVL2_5-1B's shapes
on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OURS, TORCH, BEST = "ours", "torch", "best torch"
INT8, INT4, TORCH_INT8, CONVERTED = "ours int8", "ours int4", "torch int8", "ours, converted"
_RAISED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}


@dataclass(frozen=True)
class Contender:
    """A side with its loading options.

    Attributes:
        side: 'ours' or 'reference'.
        folder: 'hf' or 'paddle', the checkpoint's layout.
        options: of the side's `load`.
        environment: variables of its process.
        rival: name of torch's fastest contender at the same precision.
        bits: of a linear layer's weight; None: as stored.
        memory: of the model, as a share of its weights in float32.
    """

    side: str
    folder: str = "hf"
    options: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    rival: str | None = None
    bits: int | None = None
    memory: float = 1.1


CONTENDERS = {
    OURS: Contender("ours", rival=BEST),
    CONVERTED: Contender("ours", folder="paddle", rival=None),
    INT8: Contender("ours", options={"load_in_8bit": True}, rival=TORCH_INT8, bits=8, memory=0.6),
    INT4: Contender("ours", options={"load_in_4bit": True}, rival=TORCH_INT8, bits=4, memory=0.6),
    TORCH: Contender("reference"),
    BEST: Contender("reference", options={"fused_attention": True}, environment=_RAISED),
    TORCH_INT8: Contender(
        "reference", options={"fused_attention": True, "int8": True}, environment=_RAISED, bits=8, memory=0.6
    ),  # fmt: skip
}
_EXACT = (OURS, TORCH, BEST)
_FEW_BITS = (OURS, INT8, INT4, TORCH, BEST, TORCH_INT8)


@dataclass(frozen=True)
class Stage:
    """A row of the benchmark.

    Attributes:
        name: in reports.
        kind: of work, a method of both sides.
        numbers: arguments of that method.
        contenders: names, in the order of their trials.
        part: of the model that the stage needs: 'vision', 'language', 'all' or '' (no model).
        goals: contender -> goals for its ratio to torch and to its rival; None: no goal.
        per: 'token' if times are reported per token.
    """

    name: str
    kind: str
    numbers: dict
    contenders: tuple[str, ...] = _EXACT
    part: str = "language"
    goals: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    per: str = ""


_TOKENS = 16  # of a decode stage
STAGES = (
    Stage(
        "preprocess 1920x1080", "preprocess", {"width": 1920, "height": 1080, "max_num": 12}, (OURS, TORCH), "",
    ),
    Stage(
        "preprocess 1600x1200, 13 tiles", "preprocess", {"width": 1600, "height": 1200, "max_num": 12},
        (OURS, TORCH), "", {OURS: (0.60, None)},
    ),
    Stage("projector 7 tiles", "projector", {"tiles": 7}, part="vision"),
    Stage("ViT 1 tile", "vision", {"tiles": 1}, part="vision", goals={OURS: (0.66, 0.92)}),
    Stage("ViT 7 tiles", "vision", {"tiles": 7}, part="vision", goals={OURS: (0.66, 0.92)}),
    Stage("prefill 300", "prefill", {"length": 300}, goals={OURS: (0.82, 0.86)}),
    Stage("prefill 1844", "prefill", {"length": 1844}, goals={OURS: (0.75, 0.86)}),
    Stage(
        "decode at 300", "decode", {"length": 300, "tokens": _TOKENS}, _FEW_BITS,
        goals={OURS: (0.42, None), INT8: (0.25, 0.55), INT4: (0.20, 0.55)}, per="token",
    ),
    Stage(
        "decode at 1844", "decode", {"length": 1844, "tokens": _TOKENS}, _FEW_BITS,
        goals={OURS: (0.33, None), INT8: (0.22, 0.55), INT4: (0.18, 0.55)}, per="token",
    ),
    Stage("answer: 7 tiles, 32 tokens", "answer", {"width": 1344, "height": 896, "text": 52, "tokens": 32}, part="all"),
    Stage("load", "load", {}, (OURS, CONVERTED, TORCH), "all", {CONVERTED: (1.0, None)}),
    Stage("load and first token of 300", "cold", {"length": 300}, (OURS, CONVERTED, TORCH), "all"),
)  # fmt: skip
CONVERSION = "conversion"  # a stage of contenders of its own: `conversion.py`
CONVERSION_GOAL = 1 / 0.7  # of `cp`'s time


def select(names: Sequence[str] | None) -> tuple[list[Stage], bool]:
    """Select stages by name or kind.

    Args:
        names: names or kinds; None: all stages.
    Returns:
        The stages, and whether the conversion is among them.
    Raises:
        ValueError: a name of no stage.
    """
    if not names:
        return list(STAGES), True
    valid = {stage.name for stage in STAGES} | {stage.kind for stage in STAGES} | {CONVERSION}
    unknown = sorted(set(names) - valid)
    if unknown:
        kinds = ", ".join(sorted({stage.kind for stage in STAGES} | {CONVERSION}))
        raise ValueError(f"stage {unknown[0]!r} does not exist; choose {kinds}, or a stage's whole name")
    return [stage for stage in STAGES if {stage.name, stage.kind} & set(names)], CONVERSION in names
