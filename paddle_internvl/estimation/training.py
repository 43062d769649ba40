"""Estimate of the memory that training takes on each card: weights, gradients, optimizer state, activations.

In: a config.json's dict and a `TrainPlan`. Out: bytes. Parameters are counted exactly; activations are a table of the
numbers that a layer keeps for its backward pass, fitted on a CPU (tests/estimation compares both). For cards the table
follows the operations that run there, and was not measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from convert.mappings import rules_for
from convert.mappings.lora import lora_targets
from convert.sizes import decoder_sizes, tile_sizes
from paddle_internvl.estimation.activations import TILES_AT_ONCE
from paddle_internvl.estimation.memory import CUDA_CONTEXT
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.estimation.training_plan import MASTER_BYTES, MOMENT_BYTES, TrainPlan
from paddle_internvl.estimation.weights import stored_weights

# Of a CPU, measured: bytes of Python, Paddle and PaddleNLP, and the share of freed memory that malloc can't use again.
_CPU_PROCESS, _MALLOC_SHARE = 630_000_000, 1 / 16
_LOSS_CHUNK = 64 << 20  # bytes of float32 logits at a time, `models.loss`
_NORM_PART = 4 << 20  # numbers of a gradient in float64 at a time, `training.clipping`

# part -> numbers that a layer keeps for its backward pass: width -> its multiple for each token or patch. Attention
# weights are not among them: neither flash attention nor the CPU's kernel keeps them. 'rows' and 'expert_features' are
# widths of all experts that compute a token.
_KEPT = {
    "language_model": {"width": 4, "queries": 2, "keys": 2, "features": 3, "rows": 2, "expert_features": 3},
    "vision_model": {"width": 10, "features": 2},
}
_PROJECTOR = {"merged": 2, "width": 3}  # of each visual token
_ENDS = 3.5  # widths of each token: embeddings, the last norm, the loss
_EXPERTS_BACKWARD = 2  # numbers of each row that the backward pass of one layer's experts holds besides
_FROZEN_TOWER = 10  # widths of each patch while a frozen vision tower runs


@dataclass(frozen=True)
class TrainEstimate:
    """Bytes on each card.

    Attributes:
        weights: all parameters.
        gradients: of the trained parameters.
        optimizer: AdamW's moments, and master weights.
        activations: most that is alive for the backward pass, with gathered weights of sharding stage 3.
        reference: the trained parameters once more, in the reference model of preference optimisation.
        runtime: CUDA and its libraries, assumed; on a CPU the process without a model.
        peak: most of gradients and activations that is alive at once. Without gradient accumulation the first
            gradients come while activations go.
        trained: number of trained parameters of all cards.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    reference: int
    runtime: int
    peak: int
    trained: int

    @property
    def total(self) -> int:
        """Highest memory of a step."""
        return self.weights + self.reference + self.optimizer + self.runtime + self.peak


def estimate_training(config: Mapping, plan: TrainPlan) -> TrainEstimate:
    """Estimate the memory of a training run.

    Args:
        config: an InternVL's config.json, in upstream's spelling.
        plan: of the run.
    Returns:
        Bytes on each card.
    Raises:
        ValueError: more visual tokens than a row has tokens.
    """
    tile = tile_sizes(config)
    if plan.tiles * tile.tokens > plan.length:
        raise ValueError(
            f"{plan.tiles} tiles are {plan.tiles * tile.tokens} tokens, more than the {plan.length} of a row"
        )
    counted = list(_parameters(config, plan))
    numbers, trained = sum(n for _, n, _ in counted), sum(n for _, n, is_trained in counted if is_trained)
    largest = max((n for _, n, is_trained in counted if is_trained), default=0)
    size, shards = plan.number_bytes, [plan.gpus if plan.sharding >= stage else 1 for stage in (1, 2, 3)]
    gradients = trained * size // shards[1]
    activations = _activations(config, plan) + _gathered(counted, plan)
    head = decoder_sizes(config["llm_config"])
    learns_head = plan.unfreeze_lm_head or not (plan.freeze_llm or plan.use_llm_lora)
    head_gradient = learns_head * head.width * head.vocabulary * (6 if plan.low_precision else 4)  # float32, and cast
    step = max(16 * min(_NORM_PART, largest), 4 * largest * plan.low_precision)  # the gradients' norm
    if plan.accumulation > 1:
        peak = gradients + max(step, activations + head_gradient)
    else:
        peak = max(gradients + step, activations + head_gradient)
    sharded = trained if plan.bits else numbers  # quantized weights are not sharded
    weights = (numbers - sharded + sharded // shards[2]) * size
    if plan.sharding == 2 and plan.gpus > 1:
        weights += trained // plan.gpus * size  # the shards, beside the whole weights
    if plan.bits:
        weights -= _saved_by_bits(config, plan)
    optimizer = trained * (MOMENT_BYTES + MASTER_BYTES * plan.low_precision) // shards[0]
    reference = trained // shards[2] * size if plan.method == "mpo" and plan.reference_model else 0
    process = _CPU_PROCESS + int(_MALLOC_SHARE * (weights + reference + optimizer + peak))
    return TrainEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        reference=reference,
        runtime=CUDA_CONTEXT if plan.device == "gpu" else process,
        peak=peak,
        trained=trained,
    )


def _saved_by_bits(config: Mapping, plan: TrainPlan) -> int:
    """Bytes that weights in 8 or 4 bits take less."""
    floats = Plan(dtype="bfloat16" if plan.low_precision else "float32", device=plan.device, kernels=False)
    stored = [
        sum(weight.bytes for weight in stored_weights(config, replace(floats, bits=b))) for b in (None, plan.bits)
    ]
    return stored[0] - stored[1]


def _gathered(counted: Sequence[tuple[str, int, bool]], plan: TrainPlan) -> int:
    """Most bytes of gathered weights (stage 3) and of whole gradients (stages 2 and 3) at once: of the network around
    its layers, and of the largest layer; without recompute the graph keeps the weights of every layer."""
    if plan.sharding < 2 or plan.gpus == 1:
        return 0
    weights, gradients = Counter(), Counter()
    for name, numbers, is_trained in counted:
        layer = re.match(r".*layers\.\d+\.", name)
        unit = layer[0] if layer else ""
        weights[unit] += numbers * (plan.sharding == 3)
        gradients[unit] += numbers * is_trained
    ends = weights.pop("") + gradients.pop("")
    layers = max(weights[unit] + gradients[unit] for unit in weights)
    if not plan.recompute:
        layers = sum(weights.values()) + max(gradients.values())
    return (ends + layers) * plan.number_bytes


def _parameters(config: Mapping, plan: TrainPlan) -> Iterator[tuple[str, int, bool]]:
    """Name and numbers of each parameter, and whether they are trained."""
    ranks = {"language_model": plan.use_llm_lora, "vision_model": plan.use_backbone_lora}
    for rule in rules_for(config):
        for name, shape in zip(rule.ours, rule.our_shapes()):
            yield name, prod(shape), _is_trained(name, config, plan)
    for target in lora_targets(dict(config)):
        rank = ranks.get(target.tower)
        outputs, inputs = target.weight.shapes[0]
        if rank and target.in_block:
            yield target.weight.ours[0], rank * (inputs + outputs), True


def _is_trained(name: str, config: Mapping, plan: TrainPlan) -> bool:
    if name.startswith("mlp1."):
        return not plan.freeze_mlp
    if name.startswith("language_model."):
        is_head = plan.unfreeze_lm_head and "lm_head" in name
        return is_head or not (plan.freeze_llm or plan.use_llm_lora)
    _, in_layer, rest = name.partition("encoder.layers.")
    if in_layer and int(rest.partition(".")[0]) in _unfrozen_layers(config, plan):
        return True
    return not (plan.freeze_backbone or plan.use_backbone_lora)


def _unfrozen_layers(config: Mapping, plan: TrainPlan) -> range:
    layers = range(config["vision_config"]["num_hidden_layers"])
    return layers[plan.unfreeze_vit_layers :] if plan.unfreeze_vit_layers else range(0)


def _activations(config: Mapping, plan: TrainPlan) -> int:
    """Most bytes of activations at once: of the whole graph, or of a frozen vision tower before there is one."""
    vision, tile, decoder = config["vision_config"], tile_sizes(config), decoder_sizes(config["llm_config"])
    size = plan.number_bytes
    tokens, tiles = plan.texts * plan.length, plan.rows * plan.tiles
    patches = tiles * (1 + tile.patches)
    active = decoder.experts.active if decoder.experts else 0
    widths = {
        "width": decoder.width, "queries": decoder.query_width, "keys": decoder.kv_width,
        "features": 0 if decoder.all_sparse else decoder.features, "rows": active * decoder.width,
        "expert_features": active * decoder.experts.features if active else 0,
    }  # fmt: skip
    tower = {"width": vision["hidden_size"], "features": vision["intermediate_size"]}
    layer = tokens * (size * _numbers(_KEPT["language_model"], widths) + _lora_bytes(config, plan, "language_model"))
    graph = _in_graph(plan, decoder.layers, layer, tokens * decoder.width * size)
    graph += tokens * decoder.width * _ENDS * size + 2 * min(_LOSS_CHUNK, 4 * tokens * decoder.vocabulary)
    graph += tokens * widths["rows"] * _EXPERTS_BACKWARD * size
    depth = _trained_depth(config, plan)
    if depth or not plan.freeze_mlp:
        merged = {"merged": vision["hidden_size"] * tile.merge**2, "width": decoder.width}
        graph += tiles * tile.tokens * _numbers(_PROJECTOR, merged) * size
    if depth:
        layer = patches * (size * _numbers(_KEPT["vision_model"], tower) + _lora_bytes(config, plan, "vision_model"))
        graph += _in_graph(plan, depth, layer, patches * tower["width"] * size)
    at_once = (tiles if plan.sharding > 1 else min(tiles, TILES_AT_ONCE)) * (1 + tile.patches)
    frozen = at_once * tower["width"] * _FROZEN_TOWER * size
    number = 4 + size if plan.low_precision else 4  # float32, and a copy in low precision
    pixels = 3 * tile.side**2 * max(tiles, 1) * number
    return int(max(graph, frozen) + pixels)


def _in_graph(plan: TrainPlan, layers: int, layer: float, inputs: float) -> float:
    """Bytes that layers keep: all of each, or with recompute their inputs and all of one."""
    return layers * inputs + layer if plan.recompute else layers * layer


def _trained_depth(config: Mapping, plan: TrainPlan) -> int:
    """Number of vision layers whose activations are kept."""
    if not plan.freeze_backbone or plan.use_backbone_lora:
        return config["vision_config"]["num_hidden_layers"]
    return len(_unfrozen_layers(config, plan))


def _lora_bytes(config: Mapping, plan: TrainPlan, part: str) -> float:
    """Bytes that a layer's adapters keep for each token: x A, and with dropout their inputs and masks."""
    rank = plan.use_llm_lora if part == "language_model" else plan.use_backbone_lora
    if not rank:
        return 0
    targets = [
        target for target in lora_targets(dict(config)) if target.tower == part and ".layers.0." in target.upstream
    ]
    layers = [target.weight.shapes[0][1] for target in targets for _ in target.ours]  # their inputs
    dropped = sum(layers) * (plan.number_bytes + 1) if plan.lora_dropout else 0
    return dropped + len(layers) * rank * plan.number_bytes


def _numbers(terms: Mapping[str, float], widths: Mapping[str, float]) -> float:
    return sum(multiple * widths[name] for name, multiple in terms.items())
