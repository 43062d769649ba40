"""InternViT, 300M and 6B: names are upstream's own, linear weights are transposed."""

from __future__ import annotations

from convert.rules import Rule, keep, linear, per_layer

PREFIX = "vision_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the vision tower from its `vision_config`."""
    c = config["hidden_size"]
    i = config["intermediate_size"]
    patch = config.get("patch_size", 14)
    channels = config.get("num_channels", 3)
    positions = 1 + (config.get("image_size", 224) // patch) ** 2
    layer_norm = config.get("norm_type", "rms_norm") == "layer_norm"

    def same(make, name: str, shape: tuple[int, ...]) -> Rule:
        return make(prefix + name, prefix + name, shape)

    layer = [
        same(linear, "encoder.layers.{}.attn.qkv.weight", (3 * c, c)),
        same(linear, "encoder.layers.{}.attn.proj.weight", (c, c)),
        same(keep, "encoder.layers.{}.attn.proj.bias", (c,)),
        same(linear, "encoder.layers.{}.mlp.fc1.weight", (i, c)),
        same(keep, "encoder.layers.{}.mlp.fc1.bias", (i,)),
        same(linear, "encoder.layers.{}.mlp.fc2.weight", (c, i)),
        same(keep, "encoder.layers.{}.mlp.fc2.bias", (c,)),
        same(keep, "encoder.layers.{}.norm1.weight", (c,)),
        same(keep, "encoder.layers.{}.norm2.weight", (c,)),
        same(keep, "encoder.layers.{}.ls1", (c,)),
        same(keep, "encoder.layers.{}.ls2", (c,)),
    ]
    if config.get("qkv_bias", False):
        layer.append(same(keep, "encoder.layers.{}.attn.qkv.bias", (3 * c,)))
    if config.get("qk_normalization", True):
        layer += [same(keep, f"encoder.layers.{{}}.attn.{name}.weight", (c,)) for name in ("q_norm", "k_norm")]
    if layer_norm:
        layer += [same(keep, f"encoder.layers.{{}}.{name}.bias", (c,)) for name in ("norm1", "norm2")]
    return [
        same(keep, "embeddings.class_embedding", (1, 1, c)),
        same(keep, "embeddings.position_embedding", (1, positions, c)),
        same(keep, "embeddings.patch_embedding.weight", (c, channels, patch, patch)),
        same(keep, "embeddings.patch_embedding.bias", (c,)),
        *per_layer(config["num_hidden_layers"], layer),
    ]
