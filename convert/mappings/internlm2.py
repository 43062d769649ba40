"""InternLM2: its own names, q, k and v interleaved in one weight, and a head called `output`."""

from __future__ import annotations

from convert.layouts import internlm2_qkv
from convert.rules import Rule, drop, keep, linear, per_layer, split

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    d, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    h = config["num_attention_heads"]
    k = config.get("num_key_value_heads") or h
    e = d // h
    qkv = (h + 2 * k) * e
    theirs, ours = prefix + "model.layers.{}.", prefix + "model.layers.{}."
    projections = [ours + f"self_attn.{name}_proj" for name in "qkv"]
    layout = internlm2_qkv(h, k, e)
    layer = [
        split(theirs + "attention.wqkv.weight", [p + ".weight" for p in projections], (qkv, d), layout),
        linear(theirs + "attention.wo.weight", ours + "self_attn.o_proj.weight", (d, h * e)),
        linear(theirs + "feed_forward.w1.weight", ours + "mlp.gate_proj.weight", (i, d)),
        linear(theirs + "feed_forward.w3.weight", ours + "mlp.up_proj.weight", (i, d)),
        linear(theirs + "feed_forward.w2.weight", ours + "mlp.down_proj.weight", (d, i)),
        keep(theirs + "attention_norm.weight", ours + "input_layernorm.weight", (d,)),
        keep(theirs + "ffn_norm.weight", ours + "post_attention_layernorm.weight", (d,)),
        drop(theirs + "attention.rotary_emb.inv_freq", "recomputed from rope_theta"),
    ]
    if config.get("bias", False):
        layer += [
            split(theirs + "attention.wqkv.bias", [p + ".bias" for p in projections], (qkv,), layout),
            keep(theirs + "attention.wo.bias", ours + "self_attn.o_proj.bias", (d,)),
        ]
    return [
        keep(prefix + "model.tok_embeddings.weight", prefix + "model.embed_tokens.weight", (v, d)),
        *per_layer(config["num_hidden_layers"], layer),
        keep(prefix + "model.norm.weight", prefix + "model.norm.weight", (d,)),
        linear(prefix + "output.weight", prefix + "lm_head.weight", (v, d), optional=True),
    ]
