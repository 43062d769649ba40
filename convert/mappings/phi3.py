"""Phi-3: Llama's names, but q, k, v in one weight and gate, up in another, stacked."""

from __future__ import annotations

from convert.layouts import stacked
from convert.rules import Rule, keep, linear, per_layer, split

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    d, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    h = config["num_attention_heads"]
    k = config.get("num_key_value_heads") or h
    e = d // h
    at = prefix + "model.layers.{}."
    qkv = [at + f"self_attn.{name}_proj.weight" for name in "qkv"]
    gate_up = [at + f"mlp.{name}_proj.weight" for name in ("gate", "up")]
    layer = [
        split(at + "self_attn.qkv_proj.weight", qkv, ((h + 2 * k) * e, d), stacked(h * e, k * e, k * e)),
        linear(at + "self_attn.o_proj.weight", at + "self_attn.o_proj.weight", (d, h * e)),
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
        *per_layer(config["num_hidden_layers"], layer),
        keep(norm, norm, (d,)),
        linear(head, head, (v, d), optional=True),
    ]
