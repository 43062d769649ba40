"""Quantisation as a config.json declares it, read from wherever upstream writes it.

In: a config.json. Out: a `Quantization`, or None.
"""

from __future__ import annotations

from dataclasses import dataclass

from convert import CheckpointError
from convert.quant_layout import BITS, GROUP_SIZES

_FIELD, _HEAD = "quantization_config", "quantize_head"
_SUPPORTED = ("awq (gemm, 4 bit)", *BITS)


@dataclass(frozen=True)
class Quantization:
    """Storage of the linear weights of the decoder blocks, and of the output head.

    Args:
        method: 'awq', or Paddle's 'weight_only_int8' or 'weight_only_int4'.
        group_size: inputs that share a scale; -1: all.
        head: whether the output head is stored so too.
    Raises:
        CheckpointError: a group size that the method does not have.
    """

    method: str
    group_size: int
    head: bool = False

    def __post_init__(self):
        if self.is_weight_only and self.group_size not in GROUP_SIZES:
            raise CheckpointError(
                f"group_size {self.group_size} is none of {', '.join(map(str, GROUP_SIZES))} (-1: all inputs)"
            )

    @property
    def fields(self) -> dict:
        """The `quantization_config` of a config.json."""
        head = {_HEAD: True} if self.head else {}
        return {"quant_method": self.method, "group_size": self.group_size, **head}

    @property
    def bits(self) -> int:
        return BITS.get(self.method, 4)

    @property
    def is_weight_only(self) -> bool:
        """Whether the layout is Paddle's, not AWQ's."""
        return self.method in BITS


def declared_quantization(config: dict) -> Quantization | None:
    """The quantisation that a config.json declares, in `llm_config` or at the top; None: float weights.

    Args:
        config: a whole config.json, or that of a language model alone.
    Raises:
        CheckpointError: a method or setting that is not supported; names those that are.
    """
    fields = (config.get("llm_config") or {}).get(_FIELD) or config.get(_FIELD)
    if not fields:
        return None
    method = fields.get("quant_method")
    if method in BITS:
        return Quantization(method, fields.get("group_size", -1), bool(fields.get(_HEAD)))
    if method != "awq":
        raise CheckpointError(f"quant_method={method!r} is not supported; supported: {', '.join(_SUPPORTED)}")
    bits, version, group_size = (
        fields.get("bits", fields.get("w_bit")),
        fields.get("version", "gemm"),
        fields.get("group_size"),
    )
    if bits != 4 or str(version).lower() != "gemm" or group_size not in (32, 64, 128):
        raise CheckpointError(
            f"AWQ with bits={bits}, version={version!r}, group_size={group_size} is not supported; "
            "supported: 4 bit, 'gemm', groups of 32, 64 or 128"
        )
    return Quantization("awq", group_size)


def with_quantization(config: dict, quantization: Quantization) -> dict:
    """A config.json that declares `quantization`, in its `llm_config`."""
    return {**config, "llm_config": {**config["llm_config"], _FIELD: quantization.fields}}
