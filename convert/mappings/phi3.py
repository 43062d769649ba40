"""Phi-3: Llama's names, but q, k, v in one weight and gate, up in another, stacked."""

from __future__ import annotations

from convert.layouts import stacked
from convert.rules import Rule, keep, linear, per_layer, split
from convert.sizes import decoder_sizes

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    sizes = decoder_sizes(config)
    d, i, v, q, kv = sizes.width, sizes.features, sizes.vocabulary, sizes.query_width, sizes.kv_width
    at = prefix + "model.layers.{}."
    parts = [at + f"self_attn.{name}_proj.weight" for name in "qkv"]
    gate_up = [at + f"mlp.{name}_proj.weight" for name in ("gate", "up")]
    layer = [
        split(at + "self_attn.qkv_proj.weight", parts, (q + 2 * kv, d), stacked(q, kv, kv)),
        linear(at + "self_attn.o_proj.weight", at + "self_attn.o_proj.weight", (d, q)),
        split(at + "mlp.gate_up_proj.weight", gate_up, (2 * i, d), stacked(i, i)),
        linear(at + "mlp.down_proj.weight", at + "mlp.down_proj.weight", (d, i)),
        keep(at + "input_layernorm.weight", at + "input_layernorm.weight", (d,)),
        keep(at + "post_attention_layernorm.weight", at + "post_attention_layernorm.weight", (d,)),
    ]
    embedding, norm, head = (
        prefix + name for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    )
    return [
        keep(embedding, embedding, (v, d)),
        *per_layer(sizes.layers, layer),
        keep(norm, norm, (d,)),
        linear(head, head, (v, d), optional=True),
    ]
