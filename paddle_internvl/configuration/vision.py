"""The vision tower's config."""

from __future__ import annotations

from paddle_internvl.configuration.upstream import UpstreamConfig, require, require_divides


class InternVisionConfig(UpstreamConfig):
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
        require("vision_config.norm_type", norm_type, ("rms_norm", "layer_norm"))
        require("vision_config.hidden_act", hidden_act, ("gelu",))
        for name in ("dropout", "attention_dropout"):
            require(f"vision_config.{name}", upstream.get(name), (None, 0.0))
        require_divides("vision_config.hidden_size", hidden_size, "num_attention_heads", num_attention_heads)
        require_divides("vision_config.image_size", image_size, "patch_size", patch_size)
