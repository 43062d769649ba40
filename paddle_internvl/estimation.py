"""How much memory a model takes on each device, from its config.json alone, and what would make it take less.

In: a config.json's dict and a `Plan`. Out: an `Estimate` of bytes. Loads no weights, imports no Paddle.

Weights and KV cache are counted. The activations' peak is that of the costliest moment of four: the vision tower's
attention or MLP on one micro-batch of tiles, a whole prompt through a decoder layer, one decode step of all answers,
or a weight in few bits that a CPU turns back into floats. What is alive at each is read off `models` and `engine`, and
held to what Paddle's allocator counted on a CPU (tests/test_estimation.py). The figures for CUDA follow the same
reading for its forms and have not been measured. A CPU is one without kernels: that with them bfloat16 weights stay as
they are, and that no scores are held, is not in the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod

from convert.mappings import rules_for
from convert.packing import fits
from convert.quantization import Quantization, declared
from paddle_internvl.parallel.split import Split

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GROUPS = {8: -1, 4: 64}  # inputs that share a scale, as `from_pretrained` takes them by default
_ROWS = 256  # query rows of a block of scores on a CPU, as in models.attention
_TILES = 16  # tiles at once through the tower, as `vit_batch_size`
_MASKED_SCORES = 3.25  # blocks of scores alive where a mask is laid over one: scores, mask, filler, result
_SAMPLING = 12  # bytes per logit while a token is chosen, besides the logits
CUDA_CONTEXT = 800 << 20  # what CUDA and its libraries take of a card; assumed, not measured


@dataclass(frozen=True)
class Plan:
    """What is to be run, on what.

    Args:
        batch: answers at once. context: tokens of prompt and answer of each. tiles: of each prompt's pictures.
        tp: cards that share the model. bits: of the decoder blocks' linear weights; None: as the config says.
        dtype: 'bfloat16', 'float16' or 'float32'. device: 'gpu' or 'cpu'; a CPU holds everything in float32.
    """

    batch: int = 1
    context: int = 8192
    tiles: int = 13
    tp: int = 1
    bits: int | None = None
    dtype: str = "bfloat16"
    device: str = "gpu"

    def __post_init__(self):
        for name in ("batch", "context", "tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
        if self.tiles < 0:
            raise ValueError(f"tiles={self.tiles} is below 0")
        if self.dtype not in _BYTES:
            raise ValueError(f"dtype={self.dtype!r} is not supported; use one of {', '.join(_BYTES)}")

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self.device == "cpu" else _BYTES[self.dtype]


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
    sizes = _Sizes(config, plan)
    if plan.tiles * sizes.visual > plan.context:
        raise ValueError(
            f"{plan.tiles} tiles are {plan.tiles * sizes.visual} tokens, more than the context of {plan.context}"
        )
    return Estimate(
        weights=sizes.weights(),
        kv_cache=sizes.kv_cache(),
        activations=max(sizes.seeing(), sizes.reading(), sizes.speaking()) + sizes.dequantising(),
        tiles=sizes.waiting_tiles(),
        runtime=CUDA_CONTEXT if plan.device == "gpu" else 0,
    )


class _Sizes:
    """The parts of an estimate; every method returns bytes on rank 0, which has the most."""

    def __init__(self, config: Mapping, plan: Plan):
        vision, llm = config["vision_config"], config["llm_config"]
        self.plan, self.config, self.size = plan, config, plan.size
        self.split = Split.of(llm, 0, plan.tp)
        self.layers, self.width = llm["num_hidden_layers"], llm["hidden_size"]
        self.features = self.split.features // plan.tp
        self.queries = self.split.heads * self.split.head_dim // plan.tp
        self.keys = self.split.own_kv_heads * self.split.head_dim
        self.side = config.get("force_image_size") or vision.get("image_size", 224)
        patches = (self.side // vision.get("patch_size", 14)) ** 2
        self.visual = int(patches * config.get("downsample_ratio", 0.5) ** 2)
        self.patches = 1 + patches
        self.vision_width, self.vision_features = vision["hidden_size"], vision["intermediate_size"]
        self.vision_heads = vision["num_attention_heads"]
        quantization = declared(config)
        self.bits = plan.bits or (quantization.bits if quantization else None)
        self.group = _GROUPS.get(self.bits, -1) if plan.bits or not quantization else quantization.group_size
        # AWQ's weights become floats but where Paddle's kernel takes them with their own scales, which are float16.
        if _is_awq(quantization) and (plan.device == "cpu" or plan.dtype != "float16"):
            self.bits = None
        self.shapes = self._shapes()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter of rank 0."""
        llm = {name: value for name, value in self.config["llm_config"].items() if name != "quantization_config"}
        floats = {name: value for name, value in self.config.items() if name != "quantization_config"}
        shapes = {}
        for rule in rules_for({**floats, "llm_config": llm}):
            for name, shape in zip(rule.ours, rule.our_shapes()):
                cut = self.split.cut(name) if name.startswith("language_model.") else None
                shapes[name] = shape if cut is None else (*shape[: cut.axis], cut.length, *shape[cut.axis + 1 :])
        return shapes

    def weights(self) -> int:
        return sum(self._held(name, shape) for name, shape in self.shapes.items())

    def _in_few_bits(self, name: str, shape: tuple[int, ...]) -> bool:
        is_block = name.startswith("language_model.") and ".layers." in name and len(shape) == 2
        return bool(self.bits) and is_block and not fits(*shape, self.bits, self.group)

    def _held(self, name: str, shape: tuple[int, ...]) -> int:
        if not self._in_few_bits(name, shape):
            return prod(shape) * self.size
        k, n = shape
        return k * n * self.bits // 8 + n * (1 if self.group == -1 else k // self.group) * self.size

    def kv_cache(self) -> int:
        return 2 * self.layers * self.keys * self.size * self.plan.batch * self.plan.context

    def dequantising(self) -> int:
        """On a CPU a weight in few bits becomes floats at every call: three copies of the largest."""
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
        tiles = min(-(-self.plan.tiles * self.plan.batch // self.plan.tp), _TILES)
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
        logits = self.plan.batch * self.split.vocabulary * (4 + _SAMPLING)
        return gathered + max(scores, logits)


def _is_awq(quantization: Quantization | None) -> bool:
    return quantization is not None and not quantization.is_weight_only


def ways_out(config: Mapping, plan: Plan, gpus: int, memory: int) -> list[tuple[Plan, Estimate]]:
    """What would fit into `memory` bytes of each of up to `gpus` cards, where the plan does not: each change alone,
    then cards and bits together; the mildest of each kind. Empty where nothing of it helps."""

    def first(plans) -> list[tuple[Plan, Estimate]]:
        tried = ((p, estimate(config, p)) for p in plans)
        return [next(((p, e) for p, e in tried if e.total <= memory), None)]

    sizes = [n for n in Split.of(config["llm_config"], 0, 1).possible_sizes if plan.tp < n <= gpus]
    bits = [] if plan.bits or declared(config) else [8, 4]
    dtypes = ["float16"] if _is_awq(declared(config)) and plan.dtype != "float16" else []
    wider = [replace(plan, tp=n) for n in sizes]
    found = first(wider) + first(replace(plan, bits=b) for b in bits) + first(replace(plan, dtype=d) for d in dtypes)
    found += first(replace(plan, tiles=t) for t in range(plan.tiles - 1, -1, -1))
    found += first(replace(plan, batch=b) for b in range(plan.batch - 1, 0, -1))
    if not any(found):
        found = first(replace(p, bits=b) for b in bits for p in wider)
        found += first(replace(p, dtype=d) for d in dtypes for p in wider)
    return [each for each in found if each]
