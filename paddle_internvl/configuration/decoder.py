"""The language model's config: one class for all families; `convert.sizes.FAMILIES` has what each of them fixes."""

from __future__ import annotations

from convert.sizes import FAMILIES, DecoderSizes, Family, architecture_of, decoder_sizes
from paddle_internvl.configuration.upstream import UpstreamConfig, require, require_divides

_DROPOUTS = ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop")
# Fields of other tools, which change the network, and their supported values.
_ONLY = {"mlp_bias": (None, False), "partial_rotary_factor": (None, 1.0), **dict.fromkeys(_DROPOUTS, (None, 0.0))}
_ROPE_FIELDS = {"type", "rope_type", "factor", "short_factor", "long_factor"}


class DecoderConfig(UpstreamConfig):
    """The language model: one decoder, whose families differ in these fields.

    Args (named as in transformers' Llama config):
        vocab_size: V.
        hidden_size: D.
        intermediate_size: I, inner width of the gated MLP.
        num_hidden_layers: decoder layers.
        num_attention_heads: H.
        num_key_value_heads: K; None: H.
        head_dim: E; None: the family's, or D / H.
        qk_norm: whether each head of q and of k is RMS-normalised before rope, with a weight [E] for q and one for k;
            None: as the family has it.
        hidden_act: 'silu'.
        rms_norm_eps: added to the mean square under the root.
        max_position_embeddings: trained context length, in tokens.
        rope_theta: base of the rotary frequencies.
        rope_scaling: {'type': 'linear' or 'dynamic', 'factor': f}; Phi-3's {'type': 'su' (also 'longrope') or 'yarn',
            'short_factor': [E/2], 'long_factor': [E/2]}.
        original_max_position_embeddings: Phi-3's length at which the long factors begin.
        sliding_window: Phi-3: a position attends to this many last positions, itself included; None: to all.
        use_sliding_window: Qwen2's and Qwen3's switch of `sliding_window`; only None and False are supported.
        initializer_range: standard deviation of a new model's weights.
        num_experts: Qwen3-MoE: X, experts of a sparse layer.
        num_experts_per_tok: A, experts that compute a token.
        moe_intermediate_size: inner width of each expert.
        norm_topk_prob: whether the weights of a token's experts are divided by their sum.
        decoder_sparse_step: every so many layers one has experts, and the others an MLP.
        mlp_only_layers: indices of layers with an MLP all the same.
        output_router_logits: whether the loss has the router's load-balancing loss added.
        router_aux_loss_coef: its weight.
        architectures: the family, a key of `convert.sizes.FAMILIES`.
    Raises:
        ValueError: an architecture, activation, dropout or rope scaling that is not supported; head counts that don't
            divide.
    """

    model_type = "internvl_decoder"

    def __init__(
        self,
        vocab_size: int = 92553,
        hidden_size: int = 2048,
        intermediate_size: int = 8192,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 16,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        qk_norm: bool | None = None,
        hidden_act: str = "silu",
        rms_norm_eps: float = 1e-5,
        max_position_embeddings: int = 32768,
        rope_theta: float = 1_000_000.0,
        rope_scaling: dict | None = None,
        original_max_position_embeddings: int | None = None,
        sliding_window: int | None = None,
        use_sliding_window: bool | None = None,
        initializer_range: float = 0.02,
        num_experts: int | None = None,
        num_experts_per_tok: int | None = None,
        moe_intermediate_size: int | None = None,
        norm_topk_prob: bool = False,
        decoder_sparse_step: int = 1,
        mlp_only_layers: list[int] | None = None,
        output_router_logits: bool = False,
        router_aux_loss_coef: float = 0.001,
        architectures: list[str] | None = None,
        **upstream,
    ):
        architectures = architectures or ["InternLM2ForCausalLM"]
        architecture_of({"architectures": architectures})
        require("llm_config.hidden_act", hidden_act, ("silu",))
        upstream.setdefault("tie_word_embeddings", False)
        for name, supported in _ONLY.items():
            require(f"llm_config.{name}", upstream.get(name), supported)
        for layer_type in upstream.get("layer_types") or ():
            require("llm_config.layer_types", layer_type, ("full_attention",))
        # Loading sets `weight_quantization` by the tensors that it finds; the file's field is written anew from it.
        upstream.pop("quantization_config", None)
        self.weight_quantization: dict | None = None
        super().__init__(architectures=architectures, **upstream)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.hidden_act = hidden_act
        self.rms_norm_eps = rms_norm_eps
        self.max_position_embeddings = max_position_embeddings
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.original_max_position_embeddings = original_max_position_embeddings or max_position_embeddings
        self.sliding_window = sliding_window
        self.use_sliding_window = use_sliding_window
        self.initializer_range = initializer_range
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.moe_intermediate_size = moe_intermediate_size
        self.norm_topk_prob = norm_topk_prob
        self.decoder_sparse_step = decoder_sparse_step
        self.mlp_only_layers = mlp_only_layers
        self.output_router_logits = output_router_logits
        self.router_aux_loss_coef = router_aux_loss_coef
        self._check_experts()
        require("llm_config.use_sliding_window", use_sliding_window, (None, False))
        require_divides("llm_config.num_attention_heads", num_attention_heads,
                         "num_key_value_heads", self.num_key_value_heads)  # fmt: skip
        head_dim = head_dim or self._family.head_dim
        if head_dim is None:
            require_divides("llm_config.hidden_size", hidden_size, "num_attention_heads", num_attention_heads)
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.qk_norm = self._family.qk_norm if qk_norm is None else qk_norm
        require_divides("llm_config.head_dim", self.head_dim, "rope's pairs", 2)
        if rope_scaling is not None:
            self._check_rope_scaling()

    def _check_experts(self) -> None:
        if not self._family.has_experts:
            require("llm_config.num_experts", self.num_experts, (None, 0))
        elif not 1 <= (self.num_experts_per_tok or 0) <= (self.num_experts or 0) or not self.moe_intermediate_size:
            raise ValueError(
                f"llm_config.num_experts={self.num_experts}, num_experts_per_tok={self.num_experts_per_tok}, "
                f"moe_intermediate_size={self.moe_intermediate_size}: numbers above 0 are needed, the second at most "
                "the first"
            )

    def _check_rope_scaling(self) -> None:
        scaling = self.rope_scaling
        require("llm_config.rope_scaling.type", self.rope_kind, self._family.rope_kinds)
        for name in scaling.keys() - _ROPE_FIELDS:
            require(f"llm_config.rope_scaling.{name}", scaling[name], (None,))
        if self.rope_kind in ("linear", "dynamic"):
            factor = scaling.get("factor")
            if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 1:
                raise ValueError(f"llm_config.rope_scaling.factor={factor!r}: a number of at least 1 is needed")
            return
        for name in ("short_factor", "long_factor"):
            if len(scaling.get(name) or ()) != self.head_dim // 2:
                raise ValueError(
                    f"llm_config.rope_scaling.{name} needs {self.head_dim // 2} numbers, half a head's width"
                )

    @property
    def _family(self) -> Family:
        return FAMILIES[self.architectures[0]]

    @property
    def sizes(self) -> DecoderSizes:
        """Heads, widths, biases and norms of the language model."""
        return decoder_sizes(vars(self))

    @property
    def rope_kind(self) -> str:
        """'default' or the kind of `rope_scaling`, which a file spells `type` or `rope_type`."""
        scaling = self.rope_scaling or {"type": "default"}
        return scaling.get("type", scaling.get("rope_type"))

    @property
    def context_length(self) -> int:
        """Context length in tokens: the trained one, times the factor of a linear or dynamic rope scaling."""
        factor = (self.rope_scaling or {}).get("factor", 1.0) if self.rope_kind in ("linear", "dynamic") else 1.0
        return int(self.max_position_embeddings * factor)

    @property
    def window(self) -> int | None:
        """Sliding window of the attention, in positions; None: no window. (Qwen2's files name an unused one.)"""
        return self.sliding_window if self._family.has_window else None

    @property
    def qkv_bias(self) -> bool:
        """Whether the q, k and v projections have biases."""
        return self.sizes.qkv_bias

    @property
    def output_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return self.sizes.output_bias

    def to_diff_dict(self, saving_file: bool = False) -> dict:
        """The fields of config.json, under the family's model_type and with the quantisation of the weights."""
        fields = {**super().to_diff_dict(saving_file=saving_file), "model_type": self._family.model_type}
        quantization = fields.pop("weight_quantization", None)
        return {**fields, "quantization_config": quantization} if quantization else fields


class InternLM2Config(DecoderConfig):
    """The config of a folder that holds an InternLM2 alone."""

    model_type = "internlm2"
