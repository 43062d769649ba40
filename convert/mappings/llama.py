"""Llama (Yi-34B, Llama-3-70B): our names are its own, linear weights are transposed."""

from __future__ import annotations

from convert.rules import Rule, drop, keep, linear, per_layer

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj") if config.get("attention_bias", False) else ()
    return rules_with_biases(config, prefix, names)


def rules_with_biases(config: dict, prefix: str, biased: tuple[str, ...]) -> list[Rule]:
    """The table, with biases of the attention projections named in `biased`."""
    d, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    h = config["num_attention_heads"]
    k = config.get("num_key_value_heads") or h
    e = d // h
    outputs = {"q_proj": h * e, "k_proj": k * e, "v_proj": k * e, "o_proj": d}

    def same(make, name: str, shape: tuple[int, ...], optional: bool = False) -> Rule:
        return make(prefix + name, prefix + name, shape, optional)

    layer = [
        same(linear, "model.layers.{}.self_attn.q_proj.weight", (h * e, d)),
        same(linear, "model.layers.{}.self_attn.k_proj.weight", (k * e, d)),
        same(linear, "model.layers.{}.self_attn.v_proj.weight", (k * e, d)),
        same(linear, "model.layers.{}.self_attn.o_proj.weight", (d, h * e)),
        *(same(keep, f"model.layers.{{}}.self_attn.{name}.bias", (outputs[name],)) for name in biased),
        same(linear, "model.layers.{}.mlp.gate_proj.weight", (i, d)),
        same(linear, "model.layers.{}.mlp.up_proj.weight", (i, d)),
        same(linear, "model.layers.{}.mlp.down_proj.weight", (d, i)),
        same(keep, "model.layers.{}.input_layernorm.weight", (d,)),
        same(keep, "model.layers.{}.post_attention_layernorm.weight", (d,)),
        drop(prefix + "model.layers.{}.self_attn.rotary_emb.inv_freq", "recomputed from rope_theta"),
    ]
    return [
        same(keep, "model.embed_tokens.weight", (v, d)),
        *per_layer(config["num_hidden_layers"], layer),
        same(keep, "model.norm.weight", (d,)),
        # A head that is absent is the embedding; one that is present counts, whatever tie_word_embeddings says.
        same(linear, "lm_head.weight", (v, d), optional=True),
    ]
