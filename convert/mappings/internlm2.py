"""InternLM2: its own names, q, k and v interleaved in one weight, and a head called `output`."""

from __future__ import annotations

from convert.layouts import internlm2_qkv
from convert.rules import Rule, drop, keep, linear, per_layer, split
from convert.sizes import decoder_sizes

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    sizes = decoder_sizes(config)
    d, i, v, q = sizes.width, sizes.features, sizes.vocabulary, sizes.query_width
    qkv = q + 2 * sizes.kv_width
    at = prefix + "model.layers.{}."
    projections = [at + f"self_attn.{name}_proj" for name in "qkv"]
    layout = internlm2_qkv(sizes.heads, sizes.kv_heads, sizes.head_dim)
    layer = [
        split(at + "attention.wqkv.weight", [p + ".weight" for p in projections], (qkv, d), layout),
        linear(at + "attention.wo.weight", at + "self_attn.o_proj.weight", (d, q)),
        linear(at + "feed_forward.w1.weight", at + "mlp.gate_proj.weight", (i, d)),
        linear(at + "feed_forward.w3.weight", at + "mlp.up_proj.weight", (i, d)),
        linear(at + "feed_forward.w2.weight", at + "mlp.down_proj.weight", (d, i)),
        keep(at + "attention_norm.weight", at + "input_layernorm.weight", (d,)),
        keep(at + "ffn_norm.weight", at + "post_attention_layernorm.weight", (d,)),
        drop(at + "attention.rotary_emb.inv_freq", "recomputed from rope_theta"),
    ]
    if sizes.qkv_bias:
        layer.append(split(at + "attention.wqkv.bias", [p + ".bias" for p in projections], (qkv,), layout))
    if sizes.output_bias:
        layer.append(keep(at + "attention.wo.bias", at + "self_attn.o_proj.bias", (d,)))
    return [
        keep(prefix + "model.tok_embeddings.weight", prefix + "model.embed_tokens.weight", (v, d)),
        *per_layer(sizes.layers, layer),
        keep(prefix + "model.norm.weight", prefix + "model.norm.weight", (d,)),
        linear(prefix + "output.weight", prefix + "lm_head.weight", (v, d), optional=True),
    ]
