"""Sizes of a model, derived from its config.json here and nowhere else: head_dim, kv heads, q/k norm, tokens per tile.

In: a config.json's dict, or its `llm_config`. Out: `DecoderSizes` and `TileSizes`.
`paddle_internvl.configuration` offers the same numbers as properties of its config classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convert import CheckpointError


@dataclass(frozen=True)
class Family:
    """What the architecture of a language model fixes without a field of its config.json.

    Attributes:
        model_type: of upstream's config.json.
        qkv_bias: whether the q, k and v projections have biases; a string names the config field that decides.
        output_bias: the same of the attention's output projection.
        qk_norm: whether each head of q and of k is RMS-normalised before rope.
        head_dim: E where the config has no `head_dim`; None: D / H.
        rope_kinds: supported values of `rope_scaling.type`.
        has_window: whether `sliding_window` has an effect; transformers ignores the field in other families.
        has_experts: whether layers have a mixture of experts (MoE) in place of the MLP.
    """

    model_type: str
    qkv_bias: bool | str
    output_bias: bool | str
    qk_norm: bool = False
    head_dim: int | None = None
    rope_kinds: tuple[str, ...] = ("linear", "dynamic")
    has_window: bool = False
    has_experts: bool = False


FAMILIES = {  # by `architectures[0]`
    "InternLM2ForCausalLM": Family("internlm2", qkv_bias="bias", output_bias="bias"),
    "Qwen2ForCausalLM": Family("qwen2", qkv_bias=True, output_bias=False),
    "Qwen3ForCausalLM": Family(
        "qwen3", qkv_bias="attention_bias", output_bias="attention_bias", qk_norm=True, head_dim=128
    ),
    "Qwen3MoeForCausalLM": Family(
        "qwen3_moe", qkv_bias="attention_bias", output_bias="attention_bias", qk_norm=True, has_experts=True
    ),
    "LlamaForCausalLM": Family("llama", qkv_bias="attention_bias", output_bias="attention_bias"),
    "Phi3ForCausalLM": Family(
        "phi3", qkv_bias=False, output_bias=False, rope_kinds=("su", "longrope", "yarn"), has_window=True
    ),
}


_NEAREST = {  # unsupported architectures of published members -> the reason and the way out
    "GptOssForCausalLM": "InternVL3.5-GPT-OSS-20B-A4B-Preview; take another member of InternVL3.5",
}


def architecture_of(llm: Mapping) -> str:
    """The language model's `architectures[0]`, a key of `FAMILIES`.

    Args:
        llm: `llm_config` of a config.json.
    Raises:
        CheckpointError: an architecture that is not supported; names those that are.
    """
    architecture = (llm.get("architectures") or [None])[0]
    if architecture in _NEAREST:
        raise CheckpointError(f"llm_config.architectures={architecture!r} is not supported: {_NEAREST[architecture]}")
    if architecture not in FAMILIES:
        raise CheckpointError(
            f"llm_config.architectures={architecture!r} is not supported; supported: {', '.join(map(repr, FAMILIES))}"
        )
    return architecture


@dataclass(frozen=True)
class ExpertSizes:
    """Sizes of a mixture of experts (MoE).

    Attributes:
        experts: X, experts of a sparse layer.
        active: A, experts that compute a token.
        features: I of each expert.
        layers: indices of the sparse layers; the others have an MLP.
    """

    experts: int
    active: int
    features: int
    layers: frozenset[int]

    def expected(self, tokens: int) -> float:
        """Expected number of different experts of a layer that so many tokens choose, each expert as likely."""
        return self.experts * (1 - (1 - self.active / self.experts) ** tokens)


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of the language model.

    Attributes:
        layers: decoder layers.
        width: D.
        features: I, inner width of the MLP.
        heads: H, query heads.
        kv_heads: K, key and value heads.
        head_dim: E; H * E may differ from D.
        vocabulary: V.
        qkv_bias: whether the q, k and v projections have biases.
        output_bias: whether the attention's output projection has one.
        qk_norm: whether each head of q and of k is RMS-normalised before rope.
        experts: the mixture of experts of the sparse layers; None: every layer has an MLP.
    """

    layers: int
    width: int
    features: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    experts: ExpertSizes | None = None

    @property
    def query_width(self) -> int:
        """H * E: outputs of the q projection and inputs of the output projection."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """K * E: outputs of the k projection and of the v projection."""
        return self.kv_heads * self.head_dim

    @property
    def all_sparse(self) -> bool:
        """Whether every layer has experts, and none an MLP."""
        return self.experts is not None and len(self.experts.layers) == self.layers

    @property
    def cached_per_token(self) -> int:
        """Numbers that the KV cache holds for one position, over all layers."""
        return 2 * self.layers * self.kv_width


def decoder_sizes(llm: Mapping) -> DecoderSizes:
    """Sizes of a language model.

    Args:
        llm: `llm_config` of a config.json, or the fields of a `DecoderConfig`.
    Raises:
        CheckpointError: an architecture that is not supported.
    """
    family, heads = FAMILIES[architecture_of(llm)], llm["num_attention_heads"]

    def flag(value: bool | str) -> bool:
        return bool(llm.get(value, False)) if isinstance(value, str) else value

    return DecoderSizes(
        layers=llm["num_hidden_layers"],
        width=llm["hidden_size"],
        features=llm["intermediate_size"],
        heads=heads,
        kv_heads=llm.get("num_key_value_heads") or heads,
        head_dim=llm.get("head_dim") or family.head_dim or llm["hidden_size"] // heads,
        vocabulary=llm["vocab_size"],
        qkv_bias=flag(family.qkv_bias),
        output_bias=flag(family.output_bias),
        qk_norm=family.qk_norm if llm.get("qk_norm") is None else llm["qk_norm"],
        experts=_expert_sizes(llm) if family.has_experts else None,
    )


def _expert_sizes(llm: Mapping) -> ExpertSizes:
    """Sizes of the experts; `mlp_only_layers` and every layer but each `decoder_sparse_step`-th one have an MLP."""
    dense, step = llm.get("mlp_only_layers") or (), llm.get("decoder_sparse_step") or 1
    sparse = (n for n in range(llm["num_hidden_layers"]) if n not in dense and (n + 1) % step == 0)
    return ExpertSizes(
        experts=llm["num_experts"],
        active=llm["num_experts_per_tok"],
        features=llm["moe_intermediate_size"],
        layers=frozenset(sparse),
    )


@dataclass(frozen=True)
class TileSizes:
    """Sizes of one tile on its way through the vision tower and the projector.

    Attributes:
        side: S, in pixels.
        grid: patches along a side.
        merge: patches along a side of the square that pixel shuffle makes one visual token of.
    """

    side: int
    grid: int
    merge: int

    @property
    def patches(self) -> int:
        """P: patches of a tile, the class token not counted."""
        return self.grid**2

    @property
    def tokens(self) -> int:
        """N: visual tokens of a tile."""
        return (self.grid // self.merge) ** 2


def tile_sizes(config: Mapping) -> TileSizes:
    """Sizes of a tile.

    Args:
        config: a whole config.json in upstream's spelling.
    """
    vision = config["vision_config"]
    side = config.get("force_image_size") or vision.get("image_size", 224)
    return TileSizes(side, side // vision.get("patch_size", 14), round(1 / config.get("downsample_ratio", 0.5)))
