"""The three configs, read from upstream's own config.json and written back in upstream's spelling.

In: the dict of a config.json, whatever else stands in it. Out: `InternVLChatConfig` with its `vision_config`
(`InternVisionConfig`) and `llm_config` (`DecoderConfig`). They know nothing of weights, files or devices.

A released config.json nests whole dumps of transformers configs. Fields that nothing here reads are kept and
written back; a field whose value is not supported is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddlenlp.transformers import PretrainedConfig


class _UpstreamConfig(PretrainedConfig):
    """A config whose file transformers can read too."""

    def to_diff_dict(self, saving_file: bool = False) -> dict:
        """What differs from the defaults, nested configs likewise, in upstream's spelling (`torch_dtype`)."""
        fields = super().to_diff_dict(saving_file=saving_file)
        for name, value in vars(self).items():
            if isinstance(value, _UpstreamConfig):
                fields[name] = value.to_diff_dict(saving_file=saving_file)
        fields.pop("dtype", None)
        fields["torch_dtype"] = str(self.dtype).removeprefix("paddle.")
        fields.pop("paddlenlp_version", None)
        return fields


class InternVisionConfig(_UpstreamConfig):
    """InternViT, 300M and 6B alike.

    Args (upstream's `configuration_intern_vit.py`; the defaults are those of the 6B model):
        hidden_size: C. num_attention_heads: H. num_hidden_layers: encoder layers.
        image_size, patch_size: side of a tile and of a patch, in pixels.
        norm_type: 'rms_norm' or 'layer_norm'. qk_normalization: RMSNorm over the whole width of q and of k.
        qkv_bias: whether the fused qkv projection has a bias. initializer_factor: start value of the layer scales.
        drop_path_rate: stochastic depth of the last layer; linear from 0 at the first.
    Raises:
        ValueError: `norm_type` or `hidden_act` is none of the supported ones, or a size does not divide.
    """

    model_type = "intern_vit_6b"

    def __init__(
        self,
        num_channels: int = 3,
        patch_size: int = 14,
        image_size: int = 224,
        qkv_bias: bool = False,
        hidden_size: int = 3200,
        num_attention_heads: int = 25,
        intermediate_size: int = 12800,
        qk_normalization: bool = True,
        num_hidden_layers: int = 48,
        norm_type: str = "rms_norm",
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        initializer_range: float = 0.02,
        initializer_factor: float = 0.1,
        **upstream,
    ):
        super().__init__(**upstream)
        self.num_channels = num_channels
        self.patch_size = patch_size
        self.image_size = image_size
        self.qkv_bias = qkv_bias
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.qk_normalization = qk_normalization
        self.num_hidden_layers = num_hidden_layers
        self.norm_type = norm_type
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.drop_path_rate = drop_path_rate
        self.initializer_range = initializer_range
        self.initializer_factor = initializer_factor
        _require("vision_config.norm_type", norm_type, ("rms_norm", "layer_norm"))
        _require("vision_config.hidden_act", hidden_act, ("gelu",))
        _require_divides("vision_config", "hidden_size", hidden_size, "num_attention_heads", num_attention_heads)
        _require_divides("vision_config", "image_size", image_size, "patch_size", patch_size)


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


class DecoderConfig(_UpstreamConfig):
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
        _require("llm_config.architectures", architectures[0], tuple(_FAMILIES))
        _require("llm_config.hidden_act", hidden_act, ("silu",))
        upstream.setdefault("tie_word_embeddings", False)
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
        _require("llm_config.use_sliding_window", use_sliding_window, (None, False))
        _require_divides("llm_config", "num_attention_heads", num_attention_heads,
                         "num_key_value_heads", self.num_key_value_heads)  # fmt: skip
        _require_divides("llm_config", "hidden_size", hidden_size, "num_attention_heads", num_attention_heads)
        if rope_scaling is not None:
            self._check_rope_scaling()

    def _check_rope_scaling(self) -> None:
        scaling = self.rope_scaling
        _require("llm_config.rope_scaling.type", self.rope_kind, self._family.rope_kinds)
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
        return {**super().to_diff_dict(saving_file=saving_file), "model_type": self._family.model_type}


class InternLM2Config(DecoderConfig):
    """The config of a folder that holds an InternLM2 alone."""

    model_type = "internlm2"


class InternVLChatConfig(_UpstreamConfig):
    """The whole model: a vision tower, a projector and a language model.

    Args (upstream's `configuration_internvl_chat.py`):
        vision_config, llm_config: configs or their dicts.
        select_layer: which vision layer feeds the projector; -1 is the last, others index [embeddings, layer 1, ...].
        downsample_ratio: side of the visual token grid over the side of the patch grid. ps_version: 'v1' or 'v2'.
        force_image_size: tile side in pixels, where it differs from `vision_config.image_size`.
        template: name of the conversation template. dynamic_image_size, use_thumbnail, min_dynamic_patch,
        max_dynamic_patch: tiling. ("Patch" is upstream's word for a tile here.)
    Raises:
        ValueError: a value that is not supported, named.
    """

    model_type = "internvl_chat"
    is_composition = True

    def __init__(
        self,
        vision_config: InternVisionConfig | dict | None = None,
        llm_config: DecoderConfig | dict | None = None,
        select_layer: int = -1,
        force_image_size: int | None = None,
        downsample_ratio: float = 0.5,
        template: str | None = None,
        dynamic_image_size: bool = False,
        use_thumbnail: bool = False,
        ps_version: str = "v1",
        min_dynamic_patch: int = 1,
        max_dynamic_patch: int = 6,
        pad2square: bool = False,
        **upstream,
    ):
        upstream.update(tie_word_embeddings=False)
        upstream.setdefault("architectures", ["InternVLChatModel"])
        super().__init__(**upstream)
        if not isinstance(vision_config, InternVisionConfig):
            vision_config = InternVisionConfig(**_without_model_type(vision_config))
        if not isinstance(llm_config, DecoderConfig):
            llm_config = DecoderConfig(**_without_model_type(llm_config))
        self.vision_config = vision_config
        self.llm_config = llm_config
        self.select_layer = select_layer
        self.force_image_size = force_image_size
        self.downsample_ratio = downsample_ratio
        self.template = template
        self.dynamic_image_size = dynamic_image_size
        self.use_thumbnail = use_thumbnail
        self.ps_version = ps_version
        self.min_dynamic_patch = min_dynamic_patch
        self.max_dynamic_patch = max_dynamic_patch
        self.pad2square = pad2square
        self.hidden_size = llm_config.hidden_size
        _require("ps_version", ps_version, ("v1", "v2"))
        layers = vision_config.num_hidden_layers
        if not -layers - 1 <= select_layer <= layers:
            raise ValueError(f"select_layer={select_layer} is not one of the {layers + 1} hidden states of the ViT")

    @property
    def tile_side(self) -> int:
        """S: side of a tile, in pixels."""
        return self.force_image_size or self.vision_config.image_size

    @property
    def num_image_token(self) -> int:
        """N: visual tokens per tile."""
        return int((self.tile_side // self.vision_config.patch_size) ** 2 * self.downsample_ratio**2)


def _without_model_type(fields: dict | None) -> dict:
    return {name: value for name, value in (fields or {}).items() if name != "model_type"}


def _require(name: str, value, supported: tuple) -> None:
    if value not in supported:
        raise ValueError(f"{name}={value!r} is not supported; supported: {', '.join(map(repr, supported))}")


def _require_divides(part: str, name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise ValueError(f"{part}.{name}={value} is not a multiple of {divisor_name}={divisor}")
