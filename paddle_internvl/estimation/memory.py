"""The estimate of a plan, and the plans that would fit where one does not.

In: a config.json's dict, a `Plan`. Out: bytes. How they come about is told by `sizes` and `native_sizes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from convert.quant_config import declared_quantization
from paddle_internvl.estimation.native_sizes import NativeSizes
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.estimation.sizes import Sizes, is_awq
from paddle_internvl.parallel.shards import ShardPlan

CUDA_CONTEXT = 800 << 20  # what CUDA and its libraries take of a card; assumed, not measured


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device. `tiles`: pixels and visual tokens that wait; `runtime`: CUDA's own, assumed."""

    weights: int
    kv_cache: int
    activations: int
    tiles: int
    runtime: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def estimate(config: Mapping, plan: Plan) -> Estimate:
    """Memory of a plan.

    Args:
        config: an InternVL's config.json, in upstream's spelling (`convert.mappings.paddle_config`).
        plan: what is to be run, on what.
    Returns:
        Bytes on each device, by what they are for.
    Raises:
        ValueError: tensor parallel over a number of cards that can't share it, or prompts longer than the context.
    """
    sizes = (NativeSizes if plan.native else Sizes)(config, plan)
    if plan.tiles * sizes.visual > plan.context:
        raise ValueError(
            f"{plan.tiles} tiles are {plan.tiles * sizes.visual} tokens, more than the context of {plan.context}"
        )
    return Estimate(
        weights=sizes.weights(),
        kv_cache=sizes.kv_cache(),
        activations=max(sizes.seeing(), sizes.reading(), sizes.speaking()) + sizes.besides(),
        tiles=sizes.waiting_tiles(),
        runtime=CUDA_CONTEXT if plan.device == "gpu" else 0,
    )


def ways_out(config: Mapping, plan: Plan, gpus: int, memory: int) -> list[tuple[Plan, Estimate]]:
    """What would fit into `memory` bytes of each of up to `gpus` cards, where the plan does not: each change alone,
    then cards and bits together; the mildest of each kind. Empty where nothing of it helps."""

    def first(plans) -> list[tuple[Plan, Estimate]]:
        tried = ((p, estimate(config, p)) for p in plans)
        return [next(((p, e) for p, e in tried if e.total <= memory), None)]

    sizes = [n for n in ShardPlan.of(config["llm_config"], 0, 1).possible_sizes if plan.tp < n <= gpus]
    bits = [] if plan.bits or declared_quantization(config) else [8, 4]
    dtypes = ["float16"] if is_awq(declared_quantization(config)) and plan.dtype != "float16" else []
    wider = [replace(plan, tp=n) for n in sizes]
    found = first(wider) + first(replace(plan, bits=b) for b in bits) + first(replace(plan, dtype=d) for d in dtypes)
    found += first(replace(plan, tiles=t) for t in range(plan.tiles - 1, -1, -1))
    found += first(replace(plan, batch=b) for b in range(plan.batch - 1, 0, -1))
    if not any(found):
        found = first(replace(p, bits=b) for b in bits for p in wider)
        found += first(replace(p, dtype=d) for d in dtypes for p in wider)
    return [each for each in found if each]
