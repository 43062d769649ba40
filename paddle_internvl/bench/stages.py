"""What is measured, and who takes part: two tables.

A `Stage` is a kind of work (a method of `ours.Ours` and `reference.Reference`) with its numbers; a `Contender` is a
side and how its model is loaded. Stages that stand together and need the same of the same contenders share their
processes, the smallest first, so that each one's peak of memory is its own. Goals are ratios that the project set
itself for InternVL2_5-1B's shapes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OURS, TORCH, BEST = "ours", "torch", "best torch"
INT8, INT4, TORCH_INT8, CONVERTED = "ours int8", "ours int4", "torch int8", "ours, converted"
_RAISED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}


@dataclass(frozen=True)
class Contender:
    """One way to run a stage.

    Args:
        side: 'ours' or 'reference'. folder: 'hf' or 'paddle', of the work folder. options: of the side's `load`.
        environment: of its process. rival: the best that torch does of the same, by name.
        bits: of a linear layer's weight; None: as it is stored.
        memory: that the model takes, as a share of its weights in float32.
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

    Args:
        kind: what is done. numbers: how much of it. contenders: who does it, in turn. part: which of the model it
            needs: 'vision', 'language', 'all' or '' (no model). goals: of torch's and of the rival's time, by
            contender; None: not set. per: what a run is divided by, in the report.
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
CONVERSION = "conversion"  # a stage too, of two other contenders: `conversion.py`
CONVERSION_GOAL = 1 / 0.7  # of `cp`'s time


def select(names: Sequence[str] | None) -> tuple[list[Stage], bool]:
    """The stages whose name or kind is among the given (None: all), and whether the conversion is among them.

    Raises:
        ValueError: a name that fits none.
    """
    if not names:
        return list(STAGES), True
    known = {stage.name for stage in STAGES} | {stage.kind for stage in STAGES} | {CONVERSION}
    unknown = sorted(set(names) - known)
    if unknown:
        kinds = ", ".join(sorted({stage.kind for stage in STAGES} | {CONVERSION}))
        raise ValueError(f"stage {unknown[0]!r} is not known; known: {kinds}, or a stage's whole name")
    return [stage for stage in STAGES if {stage.name, stage.kind} & set(names)], CONVERSION in names
