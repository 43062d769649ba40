"""Weights of rank 0 counted exactly: every parameter in the storage form that loading gives it.

In: a config.json's dict and a `Plan`. Out: numbers and bytes. Memory-mapped weights count, as once used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from convert.mappings import rules_for
from convert.mappings.experts import is_expert
from convert.mappings.quantized_tables import is_head, is_quantizable
from convert.quant_config import Quantization, declared_quantization
from convert.quant_layout import packing_obstacle
from convert.sizes import decoder_sizes
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.parallel.shards import ShardPlan

Shape = tuple[int, ...]
_LOAD_IN_BITS = {8: Quantization("weight_only_int8", -1), 4: Quantization("weight_only_int4", 64)}  # from_pretrained's


class StoredWeight(NamedTuple):
    """One parameter as it is stored.

    Attributes:
        numbers: numbers of its shape on rank 0.
        bytes: bytes it takes, the scales and offsets of a quantized weight included.
        packed: numbers of one of its matrices, if it is stored in 8 or 4 bits; else 0.
    """

    numbers: int
    bytes: int
    packed: int = 0


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters.

    Attributes:
        parts: by part of the network: 'vision_model', 'mlp1', 'language_model'.
        active: those of the language model that one token reads: of a mixture of experts the chosen experts' alone.
    """

    parts: Mapping[str, int]
    active: int

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parts.values())


def parameter_counts(config: Mapping) -> ParameterCounts:
    """Count the parameters of a config.json in upstream's spelling: of a quantized one, those of its float weights."""
    parts: Counter[str] = Counter()
    in_experts = 0
    for rule in rules_for(_without_quantization(config)):
        for name, shape in zip(rule.ours, rule.our_shapes()):
            parts[name.partition(".")[0]] += prod(shape)
            in_experts += prod(shape) * is_expert(name)
    experts = decoder_sizes(config["llm_config"]).experts
    idle = in_experts * (experts.experts - experts.active) // experts.experts if experts else 0
    return ParameterCounts(parts, parts["language_model"] - idle)


def stored_weights(config: Mapping, plan: Plan) -> Iterator[StoredWeight]:
    """Every parameter of rank 0."""
    quantization = _LOAD_IN_BITS[plan.bits] if plan.bits else declared_quantization(config)
    if plan.quantize_head:
        quantization = replace(quantization, head=True)
    shards = ShardPlan.of(config["llm_config"], 0, plan.tp)
    for rule in rules_for(_without_quantization(config)):
        for name, shape in zip(rule.ours, rule.our_shapes()):
            in_decoder = name.startswith("language_model.")
            spec = shards.shard_of(name) if in_decoder else None
            shard = shape if spec is None else (*shape[: spec.axis], spec.length, *shape[spec.axis + 1 :])
            is_matrix = len(shape) in (2, 3) and name.endswith(".weight")  # or the matrices of all experts of a layer
            if quantization and is_matrix and in_decoder and is_quantizable(name, quantization.head):
                yield _quantized(shape, shard, plan, quantization, is_head(name))
            elif plan.int8_activations and is_matrix and ".encoder.layers." in name:
                yield StoredWeight(prod(shard), prod(shard) + shard[-1] * plan.compute_bytes, prod(shard))
            else:
                yield StoredWeight(prod(shard), prod(shard) * (plan.matrix_bytes if is_matrix else plan.compute_bytes))


def _without_quantization(config: Mapping) -> dict:
    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    if "llm_config" in plain:
        plain["llm_config"] = _without_quantization(plain["llm_config"])
    return plain


def _quantized(whole: Shape, shard: Shape, plan: Plan, quantization: Quantization, head: bool) -> StoredWeight:
    """A linear weight of a decoder layer, or the head: packed with scales, or as floats where no kernel takes it."""
    numbers = prod(shard)
    if head and plan.tp > 1:
        return StoredWeight(numbers, numbers * plan.compute_bytes)
    if _is_packed(shard, plan, quantization, padded=head and plan.device == "cpu"):
        *experts, k, n = shard
        groups = prod(experts) * n * (1 if quantization.group_size == -1 else k // quantization.group_size)
        tables = 2 if plan.native and not quantization.is_weight_only else 1  # a CPU keeps AWQ's offsets beside scales
        return StoredWeight(numbers, numbers * quantization.bits // 8 + groups * tables * plan.compute_bytes, k * n)
    dequantized = not quantization.is_weight_only or _is_packed(whole, plan, quantization)
    return StoredWeight(numbers, numbers * (plan.compute_bytes if dequantized else plan.matrix_bytes))


def _is_packed(shape: Shape, plan: Plan, quantization: Quantization, padded: bool = False) -> bool:
    """Whether a kernel takes a weight, whose columns may be `padded`, in few bits. AWQ's: ours in one CPU process,
    Paddle's on cards in float16."""
    if not quantization.is_weight_only:
        if plan.device == "cpu":
            return plan.native and plan.tp == 1
        if plan.dtype != "float16":
            return False
    return packing_obstacle(*shape[-2:], quantization.bits, quantization.group_size, padded) is None
