"""Stages and contenders of the model benchmark, as two tables.

A `Stage` is a kind of work (a method of every side, see `ours.Ours`) with its arguments; a `Contender` is a side with
the options of its loading. Neighbouring stages of the same part and contenders share processes, the smallest stage
first, so that each stage's peak of memory is its own. Goals are the project's ratios for InternVL2_5-1B's shapes on two
cores: to torch, and to the fastest rival of the same precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OURS, TORCH, BEST = "ours", "torch", "best torch"
BFLOAT16, INT8, INT4 = "ours bfloat16", "ours int8", "ours int4"
INT8_ACTIVATIONS = "ours int8, int8 activations"
INT8_HEAD, INT4_HEAD = "ours int8, head too", "ours int4, head too"
TORCH_INT8, CONVERTED = "torch int8", "ours, converted"
OPENVINO = {name: f"OpenVINO {name}" for name in ("float32", "bfloat16", "int8", "int4")}
LLAMA = {kind: f"llama.cpp {kind}" for kind in ("bf16", "q8_0", "q4_0")}
_RAISED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}


@dataclass(frozen=True)
class Contender:
    """A side with its loading options.

    Attributes:
        side: 'ours', 'torch', 'openvino' or 'llama.cpp'.
        folder: 'hf', 'paddle' or 'gguf', the checkpoint's layout.
        options: of the side's `load`.
        environment: variables of its process.
        precision: of the arithmetic, and of the weights where few bits are the point.
        bits: of a linear layer's weight; None: as stored.
        memory: of the model, as a share of its weights in float32.
        needs: instruction set of its arithmetic; '': any.
    """

    side: str
    folder: str = "hf"
    options: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    precision: str = "float32"
    bits: int | None = None
    memory: float = 1.1
    needs: str = ""


def _openvino(precision: str, **fields) -> Contender:
    return Contender("openvino", options={"precision": precision}, precision=precision, **fields)


def _llama(kind: str, precision: str, **fields) -> Contender:
    return Contender("llama.cpp", "gguf", {"kind": kind}, precision=precision, **fields)


CONTENDERS = {
    OURS: Contender("ours"),
    BFLOAT16: Contender("ours", options={"dtype": "bfloat16"}, precision="bfloat16", needs="avx512_bf16"),
    CONVERTED: Contender("ours", folder="paddle"),
    INT8: Contender("ours", options={"load_in_8bit": True}, precision="int8", bits=8, memory=0.6),
    INT8_ACTIVATIONS: Contender(
        "ours", options={"load_in_8bit": True, "int8_activations": True, "dtype": "bfloat16"}, precision="int8", bits=8,
        memory=0.6, needs="avx512_bf16",
    ),
    INT4: Contender("ours", options={"load_in_4bit": True}, precision="int4", bits=4, memory=0.6),
    INT8_HEAD: Contender(
        "ours", options={"load_in_8bit": True, "quantize_head": True}, precision="int8", bits=8, memory=0.6,
    ),
    INT4_HEAD: Contender(
        "ours", options={"load_in_4bit": True, "quantize_head": True}, precision="int4", bits=4, memory=0.6,
    ),
    TORCH: Contender("torch"),
    BEST: Contender("torch", options={"fused_attention": True}, environment=_RAISED),
    TORCH_INT8: Contender(
        "torch", options={"fused_attention": True, "int8": True}, environment=_RAISED, precision="int8", bits=8,
        memory=0.6,
    ),
    OPENVINO["float32"]: _openvino("float32"),
    OPENVINO["bfloat16"]: _openvino("bfloat16", needs="avx512_bf16"),
    OPENVINO["int8"]: _openvino("int8", bits=8, memory=0.8),
    OPENVINO["int4"]: _openvino("int4", bits=4, memory=0.8),
    LLAMA["bf16"]: _llama("bf16", "bfloat16", memory=0.6),
    LLAMA["q8_0"]: _llama("q8_0", "int8", bits=8, memory=0.4),
    LLAMA["q4_0"]: _llama("q4_0", "int4", bits=4, memory=0.3),
}  # fmt: skip
_EXACT = (OURS, TORCH, BEST)
_VISION = (OURS, BFLOAT16, INT8_ACTIVATIONS, TORCH, BEST, OPENVINO["float32"], OPENVINO["bfloat16"])
_DECODE = tuple(name for name in CONTENDERS if name != CONVERTED)
_PREFILL = tuple(name for name in _DECODE if name not in (INT8_HEAD, INT4_HEAD))  # a prompt has one row of logits


@dataclass(frozen=True)
class Stage:
    """A row of the benchmark.

    Attributes:
        name: in reports.
        kind: of work, a method of both sides.
        numbers: arguments of that method.
        contenders: names, in the order of their trials.
        part: of the model that the stage needs: 'vision', 'language', 'all' or '' (no model).
        goals: contender -> goals for its ratio to torch and to the fastest rival; None: no goal.
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
    Stage("projector 7 tiles", "projector", {"tiles": 7}, _VISION, "vision"),
    Stage("ViT 1 tile", "vision", {"tiles": 1}, _VISION, "vision", {OURS: (0.66, 0.97), BFLOAT16: (None, 0.95)}),
    Stage("ViT 7 tiles", "vision", {"tiles": 7}, _VISION, "vision", {OURS: (0.66, 0.97), BFLOAT16: (None, 0.95)}),
    Stage(
        "prefill 300", "prefill", {"length": 300}, _PREFILL,
        goals={OURS: (0.82, 0.65), BFLOAT16: (None, 0.85), INT8_ACTIVATIONS: (None, 0.60)},
    ),
    Stage(
        "prefill 1844", "prefill", {"length": 1844}, _PREFILL,
        goals={OURS: (0.75, 0.47), BFLOAT16: (None, 0.55), INT8_ACTIVATIONS: (None, 0.60)},
    ),
    Stage(
        "decode at 300", "decode", {"length": 300, "tokens": _TOKENS}, _DECODE,
        goals={OURS: (0.42, 0.95), BFLOAT16: (None, 0.95), INT8: (0.25, 0.85), INT4: (0.20, 0.90)}, per="token",
    ),
    Stage(
        "decode at 1844", "decode", {"length": 1844, "tokens": _TOKENS}, _DECODE,
        goals={OURS: (0.33, 0.95), BFLOAT16: (None, 0.95), INT8: (0.22, 0.85), INT4: (0.18, 0.90)}, per="token",
    ),
    Stage(
        "answer: 7 tiles, 32 tokens", "answer", {"width": 1344, "height": 896, "text": 52, "tokens": 32},
        (*_EXACT, BFLOAT16), "all",
    ),
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
