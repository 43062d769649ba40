"""Peak of the activations, from a small table that was measured: how many numbers a row of a phase keeps alive.

In: a config.json's dict and a `Plan`. Out: bytes. The tables count buffers in multiples of the model's widths. Those of
CPUs are fitted to what Paddle's allocator and the kernels' scratch memory came to (tests/estimation compares both, and
`python -m tests.benchmarks.memory` measures one more model); that of cards follows the same reading of the forms that
run there and was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from convert.sizes import decoder_sizes, tile_sizes
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.parallel.shards import ShardPlan
from paddle_internvl.runtime import cpu_threads

TILES_AT_ONCE = 16  # micro-batch of the vision tower, `vit_batch_size` of the model
_SCORE_ROWS = 256  # query rows whose scores are alive at once
_SAMPLING_BYTES = 16  # per logit while a token is chosen

# A mixture of experts; 'rows' are the inputs, and as many outputs, of all experts that compute a token.
_SORTED = ({"width": 3, "rows": 3.25, "expert_features": 1.25}, {"width": 3, "rows": 1, "expert_features": 3.25})
# path -> phase -> alternatives, the largest of which counts: width -> its multiple in every row.
# Rows: patches of a micro-batch, prompt tokens, cached tokens of all requests.
_LIVE = {
    "gpu": {
        "vision": ({"width": 8}, {"width": 2, "features": 2}),
        "prefill": ({"width": 3, "features": 3}, *_SORTED, {"width": 3, "queries": 5, "keys": 2}),
        "decode": ({"keys": 2},),
    },
    "cpu": {
        "vision": ({"width": 8.5, "scores": 1}, {"width": 2, "features": 2}),
        "prefill": (
            {"width": 5, "features": 3},
            *_SORTED,
            {"width": 3, "queries": 3, "keys": 3, "scores": 3.25},
        ),
        "decode": ({"keys": 2, "scores": 3.25},),
    },
    "kernels": {"vision": ({"width": 4},), "prefill": ({"width": 1.5},), "decode": ({},)},
}
# The kernels' scratch memory, which stays between calls: the larger of a tile's buffers and a prompt's; the MLP of a
# prompt works on a strip of rows at a time.
_TILE = {"width": 9, "features": 1}
_PROMPT, _STRIP = {"width": 1, "queries": 2, "keys": 2}, {"width": 1, "features": 2}
_STRIP_ROWS, _REORDERED_KEYS, _THREAD_BYTES = 1024, 4 << 20, 2 << 20


def activation_bytes(config: Mapping, plan: Plan) -> int:
    """Most bytes of activations at once on rank 0.

    Returns:
        The largest of the three phases (one micro-batch of tiles in the vision tower, one prompt in a decoder layer,
        one decode step of all requests), and the scratch memory of the kernels where they compute.
    """
    vision, shards, tile = config["vision_config"], ShardPlan.of(config["llm_config"], 0, plan.tp), tile_sizes(config)
    patches, heads = 1 + tile.patches, shards.heads // plan.tp
    sizes = decoder_sizes(config["llm_config"])
    active = sizes.experts.active if sizes.experts else 0
    decoder = {
        "width": shards.width,
        "features": 0 if sizes.all_sparse else shards.features // plan.tp,
        "rows": active * shards.width,
        "expert_features": active * sizes.experts.features if sizes.experts else 0,
        "queries": heads * shards.head_dim,
        "keys": shards.local_kv_heads * shards.head_dim,
    }
    widths = {
        "vision": {
            "width": vision["hidden_size"],
            "features": vision["intermediate_size"],
            "scores": vision["num_attention_heads"] * min(_SCORE_ROWS, patches),
        },
        "prefill": {**decoder, "scores": heads * min(_SCORE_ROWS, plan.context)},
        "decode": {**decoder, "scores": heads},
    }
    tiles = min(-(-plan.tiles * plan.batch // plan.tp), TILES_AT_ONCE)  # the ranks share the tiles out
    rows = {"vision": tiles * patches, "prefill": plan.context, "decode": plan.batch * plan.context}
    pixels = 3 * tile.side**2 * (4 + (plan.compute_bytes if plan.device == "gpu" else 0))  # float32, and cast on a card
    besides = {"vision": tiles * pixels, "decode": plan.batch * shards.vocabulary * _SAMPLING_BYTES}
    live = max(
        rows[phase] * _numbers(terms, widths[phase]) * plan.compute_bytes + besides.get(phase, 0)
        for phase, alternatives in _LIVE["kernels" if plan.native else plan.device].items()
        for terms in alternatives
    )
    return int(live + (_scratch_bytes(plan, tiles, patches, widths) if plan.native else 0))


def _numbers(terms: Mapping[str, float], widths: Mapping[str, int]) -> float:
    return sum(multiple * widths[name] for name, multiple in terms.items())


def _scratch_bytes(plan: Plan, tiles: int, patches: int, widths: Mapping[str, Mapping[str, int]]) -> int:
    tower, decoder = widths["vision"], widths["prefill"]
    prompt = plan.context * _numbers(_PROMPT, decoder) + min(_STRIP_ROWS, plan.context) * _numbers(_STRIP, decoder)
    prompt += min(_REORDERED_KEYS, 2 * decoder["keys"] * plan.context)
    tile = min(tiles, 1) * patches * _numbers(_TILE, tower)
    return 4 * max(tile, prompt) + cpu_threads() * _THREAD_BYTES
