"""What a model takes, part by part.

Weights and KV cache are counted. The activations' peak is that of the costliest moment of four: the vision tower's
attention or MLP on one micro-batch of tiles, a whole prompt through a decoder layer, one decode step of all answers,
or a weight in few bits that a CPU turns back into floats. What is alive at each is read off `models` and `engine`, and
held to what Paddle's allocator counted on a CPU (tests/estimation/test_memory.py). The figures for CUDA follow the same
reading for its forms and have not been measured. A CPU is one without kernels here; `native_sizes` has the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from convert.mappings import rules_for
from convert.quant_config import Quantization, declared_quantization
from convert.quant_layout import packing_obstacle
from convert.sizes import tile_sizes
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.parallel.shards import ShardPlan

_GROUPS = {8: -1, 4: 64}  # inputs that share a scale, as `from_pretrained` takes them by default
_ROWS = 256  # query rows of a block of scores on a CPU, as in models.attention
TILES = 16  # tiles at once through the tower, as `vit_batch_size`
_MASKED_SCORES = 3.25  # blocks of scores alive where a mask is laid over one: scores, mask, filler, result
SAMPLING = 12  # bytes per logit while a token is chosen, besides the logits


class Sizes:
    """The parts of an estimate; every method returns bytes on rank 0, which has the most."""

    def __init__(self, config: Mapping, plan: Plan):
        vision, llm = config["vision_config"], config["llm_config"]
        self.plan, self.config, self.size = plan, config, plan.size
        self.split = ShardPlan.of(llm, 0, plan.tp)
        self.layers, self.width = llm["num_hidden_layers"], llm["hidden_size"]
        self.features = self.split.features // plan.tp
        self.queries = self.split.heads * self.split.head_dim // plan.tp
        self.keys = self.split.own_kv_heads * self.split.head_dim
        tile = tile_sizes(config)
        self.side, self.visual, self.patches = tile.side, tile.tokens, 1 + tile.patches
        self.vision_width, self.vision_features = vision["hidden_size"], vision["intermediate_size"]
        self.vision_heads = vision["num_attention_heads"]
        quantization = declared_quantization(config)
        self.bits = plan.bits or (quantization.bits if quantization else None)
        self.group = _GROUPS.get(self.bits, -1) if plan.bits or not quantization else quantization.group_size
        # AWQ's weights become floats but where a kernel takes them: ours, or Paddle's with their own scales, float16.
        self.awq = is_awq(quantization)
        if self.awq and not plan.native and (plan.device == "cpu" or plan.dtype != "float16"):
            self.bits = None
        self.shapes = self._shapes()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter of rank 0."""
        llm = {name: value for name, value in self.config["llm_config"].items() if name != "quantization_config"}
        floats = {name: value for name, value in self.config.items() if name != "quantization_config"}
        shapes = {}
        for rule in rules_for({**floats, "llm_config": llm}):
            for name, shape in zip(rule.ours, rule.our_shapes()):
                cut = self.split.shard_of(name) if name.startswith("language_model.") else None
                shapes[name] = shape if cut is None else (*shape[: cut.axis], cut.length, *shape[cut.axis + 1 :])
        return shapes

    def weights(self) -> int:
        return sum(self._held(name, shape) for name, shape in self.shapes.items())

    def _in_few_bits(self, name: str, shape: tuple[int, ...]) -> bool:
        is_block = name.startswith("language_model.") and ".layers." in name and len(shape) == 2
        return bool(self.bits) and is_block and not packing_obstacle(*shape, self.bits, self.group)

    def _held(self, name: str, shape: tuple[int, ...]) -> int:
        if not self._in_few_bits(name, shape):
            return prod(shape) * self.size
        k, n = shape
        return k * n * self.bits // 8 + n * (1 if self.group == -1 else k // self.group) * self.size

    def kv_cache(self) -> int:
        return 2 * self.layers * self.keys * self.size * self.plan.batch * self.plan.context

    def besides(self) -> int:
        """Of any moment: on a CPU a weight in few bits becomes floats at every call, three copies of the largest."""
        if self.plan.device == "gpu":
            return 0
        few = [prod(shape) for name, shape in self.shapes.items() if self._in_few_bits(name, shape)]
        return 3 * max(few, default=0) * self.size

    def waiting_tiles(self) -> int:
        """Visual tokens of every prompt; a CPU holds the pixels too, for as long as the caller does."""
        tiles = self.plan.tiles * self.plan.batch
        pixels = 3 * self.side**2 * 4 if self.plan.device == "cpu" else 0
        return tiles * (self.visual * self.width * self.size + pixels)

    def seeing(self) -> int:
        """One micro-batch in a layer of the tower, its pixels as a tensor beside it. The cards share the tiles."""
        tiles = min(-(-self.plan.tiles * self.plan.batch // self.plan.tp), TILES)
        row = tiles * self.patches * self.size
        residual = 2 * self.vision_width * row + tiles * 3 * self.side**2 * 4  # the residual, its norm, the pixels
        if self.plan.device == "gpu":
            residual += tiles * 3 * self.side**2 * self.size  # the pixels in the weights' dtype
            return residual + max(6 * self.vision_width, 2 * self.vision_features) * row  # qkv together and apart
        scores = tiles * self.vision_heads * min(_ROWS, self.patches) * self.patches * 4
        attention = 6 * self.vision_width * row + scores  # q, k, v as they come and in the order of heads
        if self.patches > _ROWS:
            attention += self.vision_width * row  # the blocks' results
        return residual + max(attention, 2 * self.vision_features * row)

    def reading(self) -> int:
        """A whole prompt in a layer of the decoder."""
        length = self.plan.context
        row = length * self.size
        residual = 3 * self.width * row  # the prompt's embeddings, the residual and its norm
        mlp = 3 * self.features * row
        projected = (self.queries + 2 * self.keys) * row
        turned = 4 * self.queries * row  # rope on its way
        gathered = 2 * self.keys * row
        if self.plan.device == "gpu":
            return residual + max(mlp, projected + turned, projected + gathered + 2 * self.queries * row)
        heads = self.queries // self.split.head_dim
        scores = int(_MASKED_SCORES * heads * min(_ROWS, length) * length * 4)
        attention = projected + self.queries * row + gathered + self.queries * row + scores
        return residual + max(mlp, projected + turned, attention)

    def speaking(self) -> int:
        """One decode step: the keys and values of all answers, gathered from their blocks, and the logits."""
        rows = self.plan.batch * self.plan.context
        heads = self.queries // self.split.head_dim
        gathered = 2 * self.keys * self.size * rows
        scores = int(_MASKED_SCORES * 4 * heads * rows)
        logits = self.plan.batch * self.split.vocabulary * (4 + SAMPLING)
        return gathered + max(scores, logits)


def is_awq(quantization: Quantization | None) -> bool:
    """Whether weights are AWQ's."""
    return quantization is not None and not quantization.is_weight_only
