"""The language model's config: one class, and a table of what each family fixes without saying so."""

from __future__ import annotations

from dataclasses import dataclass

from paddle_internvl.configuration.upstream import UpstreamConfig, require, require_divides


@dataclass(frozen=True)
class _Family:
    """What a language model's architecture fixes without saying so in its config.json.

    Args:
        model_type: as upstream writes it. qkv_bias, output_bias: biases of the q, k, v projections and of the output
            projection: always (True), never (False), or as a field of the config says (its name).
        rope_kinds: the values of `rope_scaling.type` that it knows.
    """

    model_type: str
    qkv_bias: bool | str
    output_bias: bool | str
    rope_kinds: tuple[str, ...] = ("linear", "dynamic")


_FAMILIES = {  # by `architectures[0]`
    "InternLM2ForCausalLM": _Family("internlm2", qkv_bias="bias", output_bias="bias"),
    "Qwen2ForCausalLM": _Family("qwen2", qkv_bias=True, output_bias=False),
    "LlamaForCausalLM": _Family("llama", qkv_bias="attention_bias", output_bias="attention_bias"),
    "Phi3ForCausalLM": _Family("phi3", qkv_bias=False, output_bias=False, rope_kinds=("su", "longrope", "yarn")),
}


class DecoderConfig(UpstreamConfig):
    """The language model: one decoder, whose families differ in these fields.

    Args (named as in transformers' Llama config):
        hidden_size: D. intermediate_size: width of the gated MLP. num_hidden_layers: decoder layers.
        num_attention_heads: H. num_key_value_heads: K (None: H). vocab_size: V.
        rms_norm_eps, max_position_embeddings, rope_theta, rope_scaling: {'type': 'linear' or 'dynamic', 'factor': f};
            Phi-3's {'type': 'su' (also 'longrope') or 'yarn', 'short_factor': [E/2], 'long_factor': [E/2]}.
        original_max_position_embeddings: Phi-3's length at which the long factors begin.
        sliding_window: a position sees this many last ones, itself included; None: all.
    Raises:
        ValueError: an architecture, activation or rope scaling that is not supported; head counts that don't divide.
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
        hidden_act: str = "silu",
        rms_norm_eps: float = 1e-5,
        max_position_embeddings: int = 32768,
        rope_theta: float = 1_000_000.0,
        rope_scaling: dict | None = None,
        original_max_position_embeddings: int | None = None,
        sliding_window: int | None = None,
        use_sliding_window: bool | None = None,
        initializer_range: float = 0.02,
        architectures: list[str] | None = None,
        **upstream,
    ):
        architectures = architectures or ["InternLM2ForCausalLM"]
        require("llm_config.architectures", architectures[0], tuple(_FAMILIES))
        require("llm_config.hidden_act", hidden_act, ("silu",))
        upstream.setdefault("tie_word_embeddings", False)
        # The weights say how they are held; a saved config says it again of what was saved.
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
        require("llm_config.use_sliding_window", use_sliding_window, (None, False))
        require_divides("llm_config", "num_attention_heads", num_attention_heads,
                         "num_key_value_heads", self.num_key_value_heads)  # fmt: skip
        require_divides("llm_config", "hidden_size", hidden_size, "num_attention_heads", num_attention_heads)
        require("llm_config.head_dim", head_dim, (None, hidden_size // num_attention_heads))
        if rope_scaling is not None:
            self._check_rope_scaling()

    def _check_rope_scaling(self) -> None:
        scaling = self.rope_scaling
        require("llm_config.rope_scaling.type", self.rope_kind, self._family.rope_kinds)
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
    def _family(self) -> _Family:
        return _FAMILIES[self.architectures[0]]

    @property
    def head_dim(self) -> int:
        """E."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rope_kind(self) -> str:
        """'default' or the kind of `rope_scaling`, whichever of its two spellings the file uses."""
        scaling = self.rope_scaling or {"type": "default"}
        return scaling.get("type", scaling.get("rope_type"))

    @property
    def context_length(self) -> int:
        """The most positions rope is meant for: the trained ones, times the factor of a linear or dynamic scaling."""
        factor = (self.rope_scaling or {}).get("factor", 1.0) if self.rope_kind in ("linear", "dynamic") else 1.0
        return int(self.max_position_embeddings * factor)

    @property
    def window(self) -> int | None:
        """Last positions that a position sees; None: all. (Qwen2 names a window even where it does not use one.)"""
        return self.sliding_window if self.use_sliding_window is None else None

    @property
    def qkv_bias(self) -> bool:
        """Whether the q, k and v projections have biases."""
        return self._flag(self._family.qkv_bias)

    @property
    def output_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return self._flag(self._family.output_bias)

    def _flag(self, value: bool | str) -> bool:
        return bool(self.get(value, False)) if isinstance(value, str) else value

    def to_diff_dict(self, saving_file: bool = False) -> dict:
        """As its base, under the family's own model_type."""
        fields = {**super().to_diff_dict(saving_file=saving_file), "model_type": self._family.model_type}
        quantization = fields.pop("weight_quantization", None)
        return {**fields, "quantization_config": quantization} if quantization else fields


class InternLM2Config(DecoderConfig):
    """The config of a folder that holds an InternLM2 alone."""

    model_type = "internlm2"
