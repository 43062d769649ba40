"""Llama (Yi-34B, Llama-3-70B), Qwen2 to Qwen3: names are upstream's but the experts', linear weights are transposed."""

from __future__ import annotations

from convert.mappings import experts
from convert.rules import Rule, drop, keep, linear
from convert.sizes import decoder_sizes

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    sizes = decoder_sizes(config)
    d, i, v, q, kv = sizes.width, sizes.features, sizes.vocabulary, sizes.query_width, sizes.kv_width
    biases = {"q_proj": q, "k_proj": kv, "v_proj": kv} if sizes.qkv_bias else {}
    biases |= {"o_proj": d} if sizes.output_bias else {}
    head_norms = ("q_norm", "k_norm") if sizes.qk_norm else ()

    def same(make, name: str, shape: tuple[int, ...], optional: bool = False) -> Rule:
        return make(prefix + name, prefix + name, shape, optional)

    attention = [
        same(linear, "model.layers.{}.self_attn.q_proj.weight", (q, d)),
        same(linear, "model.layers.{}.self_attn.k_proj.weight", (kv, d)),
        same(linear, "model.layers.{}.self_attn.v_proj.weight", (kv, d)),
        same(linear, "model.layers.{}.self_attn.o_proj.weight", (d, q)),
        *(same(keep, f"model.layers.{{}}.self_attn.{name}.bias", (width,)) for name, width in biases.items()),
        *(same(keep, f"model.layers.{{}}.self_attn.{name}.weight", (sizes.head_dim,)) for name in head_norms),
    ]
    dense = [
        same(linear, "model.layers.{}.mlp.gate_proj.weight", (i, d)),
        same(linear, "model.layers.{}.mlp.up_proj.weight", (i, d)),
        same(linear, "model.layers.{}.mlp.down_proj.weight", (d, i)),
    ]
    norms = [
        same(keep, "model.layers.{}.input_layernorm.weight", (d,)),
        same(keep, "model.layers.{}.post_attention_layernorm.weight", (d,)),
        drop(prefix + "model.layers.{}.self_attn.rotary_emb.inv_freq", "recomputed from rope_theta"),
    ]
    sparse = experts.rules(sizes, prefix + "model.layers.{}.mlp.") if sizes.experts else []
    sparse_layers = sizes.experts.layers if sizes.experts else ()
    return [
        same(keep, "model.embed_tokens.weight", (v, d)),
        *(
            rule.at(layer)
            for layer in range(sizes.layers)
            for rule in (*attention, *(sparse if layer in sparse_layers else dense), *norms)
        ),
        same(keep, "model.norm.weight", (d,)),
        # A head that is absent is the embedding; one that is present counts, whatever tie_word_embeddings says.
        same(linear, "lm_head.weight", (v, d), optional=True),
    ]
