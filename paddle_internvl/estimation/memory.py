"""Estimate of a plan's memory, part by part, and the plans that would fit where it does not.

In: a config.json's dict and a `Plan`. Out: bytes. Weights and KV cache are exact (`weights`); the peak of the
activations is a measured table (`activations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from convert.quant_config import declared_quantization
from convert.sizes import decoder_sizes, tile_sizes
from paddle_internvl.estimation.activations import activation_bytes
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.estimation.weights import stored_weights
from paddle_internvl.parallel.shards import ShardPlan

CUDA_CONTEXT = 800 << 20  # bytes of a card for CUDA and its libraries; assumed, not measured


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device; rank 0's, which has the most.

    Attributes:
        weights: the parameters.
        kv_cache: keys and values of all requests at full context.
        activations: most that computing takes at once.
        tiles: visual tokens of all requests and, on a CPU, their pixels.
        runtime: CUDA and its libraries, assumed.
    """

    weights: int
    kv_cache: int
    activations: int
    tiles: int
    runtime: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(asdict(self).values())


def estimate(config: Mapping, plan: Plan) -> Estimate:
    """Estimate the memory of a plan.

    Args:
        config: an InternVL's config.json, in upstream's spelling (`convert.mappings.paddle_config`).
        plan: the workload, and the form and devices of the model.
    Returns:
        Bytes on each device, part by part.
    Raises:
        ValueError: a tensor-parallel degree that the decoder can't be sharded over, or tiles beyond the context.
    """
    shards, tile = ShardPlan.of(config["llm_config"], 0, plan.tp), tile_sizes(config)
    if plan.tiles * tile.tokens > plan.context:
        raise ValueError(
            f"{plan.tiles} tiles are {plan.tiles * tile.tokens} tokens, more than the context of {plan.context}"
        )
    weights = list(stored_weights(config, plan))
    activations = activation_bytes(config, plan)
    if plan.device == "cpu" and not plan.native:  # a packed weight becomes floats at every call: three copies
        activations += 3 * plan.compute_bytes * max(weight.packed for weight in weights)
    layers, keys = decoder_sizes(config["llm_config"]).layers, shards.local_kv_heads * shards.head_dim
    pixels = 4 * 3 * tile.side**2 if plan.device == "cpu" else 0
    return Estimate(
        weights=sum(weight.bytes for weight in weights),
        kv_cache=2 * layers * keys * plan.compute_bytes * plan.batch * plan.context,
        activations=activations,
        tiles=plan.tiles * plan.batch * (tile.tokens * shards.width * plan.compute_bytes + pixels),
        runtime=CUDA_CONTEXT if plan.device == "gpu" else 0,
    )


def fitting_plans(config: Mapping, plan: Plan, gpus: int, memory: int) -> list[tuple[Plan, Estimate]]:
    """Plans that fit into a card's memory where the given plan does not.

    Args:
        config: an InternVL's config.json, in upstream's spelling.
        plan: the plan that does not fit.
        gpus: cards there are.
        memory: bytes of each card.
    Returns:
        The mildest change of each kind that fits alone: cards, bits, dtype, tiles, batch. Where none does, the mildest
        of cards with bits and of cards with dtype. Empty: nothing of it fits.
    """
    quantization = declared_quantization(config)
    is_awq = quantization is not None and not quantization.is_weight_only

    def first_fit(plans) -> list[tuple[Plan, Estimate]]:
        estimates = ((candidate, estimate(config, candidate)) for candidate in plans)
        return [pair for pair in [next((pair for pair in estimates if pair[1].total <= memory), None)] if pair]

    degrees = [n for n in ShardPlan.of(config["llm_config"], 0, 1).possible_sizes if plan.tp < n <= gpus]
    bits = [] if plan.bits or quantization else [8, 4]
    dtypes = ["float16"] if is_awq and plan.dtype != "float16" else []
    sharded = [replace(plan, tp=n) for n in degrees]
    alone = (
        sharded,
        (replace(plan, bits=b) for b in bits),
        (replace(plan, dtype=d) for d in dtypes),
        (replace(plan, tiles=t) for t in range(plan.tiles - 1, -1, -1)),
        (replace(plan, batch=b) for b in range(plan.batch - 1, 0, -1)),
    )
    together = (
        (replace(shared, bits=b) for b in bits for shared in sharded),
        (replace(shared, dtype=d) for d in dtypes for shared in sharded),
    )
    return [pair for plans in alone for pair in first_fit(plans)] or [
        pair for plans in together for pair in first_fit(plans)
    ]
