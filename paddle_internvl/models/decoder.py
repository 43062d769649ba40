"""The one decoder of every language backbone: embeddings in, logits out. Knows nothing of images or text.

Families differ in fields of `DecoderConfig`, not in code. Parameters carry the Llama spelling; the checkpoints' fused
layouts are taken apart by the mapping tables in `convert`.
"""

from __future__ import annotations

import paddle
from paddle import nn
from paddlenlp.transformers import PretrainedModel

from paddle_internvl.configuration import DecoderConfig
from paddle_internvl.models.kv_cache import ContiguousKVCache, KVCache
from paddle_internvl.ops import native_layers, rope
from paddle_internvl.ops.attention import attends_where_it_lies, attention, attention_over
from paddle_internvl.ops.linear import Embedding, Linear, widen
from paddle_internvl.ops.norms import RMSNorm, swiglu, wide_sum


def _linear(inputs: int, outputs: int, bias: bool) -> Linear:
    return Linear(inputs, outputs, bias_attr=None if bias else False)


class DecoderAttention(nn.Layer):
    """Causal self-attention with K kv heads that H query heads share."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        d, e = config.hidden_size, config.head_dim
        self.flash = True
        self.window = config.window
        self.head_dim = e
        self.q_proj = _linear(d, config.num_attention_heads * e, config.qkv_bias)
        self.k_proj = _linear(d, config.num_key_value_heads * e, config.qkv_bias)
        self.v_proj = _linear(d, config.num_key_value_heads * e, config.qkv_bias)
        self.o_proj = _linear(config.num_attention_heads * e, d, config.output_bias)

    def forward(self, x, cos, sin, key_mask, cache: KVCache | None, layer: int) -> paddle.Tensor:  # x [B, L, D]
        b, length, _ = x.shape
        q = self.q_proj(x).reshape([b, length, -1, self.head_dim])  # [B, L, H, E]
        k = self.k_proj(x).reshape([b, length, -1, self.head_dim])  # [B, L, K, E]
        v = self.v_proj(x).reshape([b, length, -1, self.head_dim])
        q, k = rope.apply(q, cos, sin), rope.apply(k, cos, sin)
        if cache is not None and attends_where_it_lies(q):
            cache.store(layer, k, v)
            y = attention_over(q, cache.view(length), layer, key_mask=key_mask, window=self.window)
            return self.o_proj(y.reshape([b, length, -1]))
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # [B, M, K, E]
        lengths = None if cache is None else cache.lengths
        y = attention(
            q, k, v, causal=True, key_mask=key_mask, window=self.window, flash=self.flash, lengths=lengths
        )  # fmt: skip
        return self.o_proj(y.reshape([b, length, -1]))


class DecoderMLP(nn.Layer):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = _linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = _linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Layer):
    """Pre-norm attention and MLP."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.self_attn = DecoderAttention(config)
        self.mlp = DecoderMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, cos, sin, key_mask, cache, layer: int) -> paddle.Tensor:  # [B, L, D]
        whole = native_layers.decoder_layers([self], x, cos, sin, key_mask, cache, layer)
        if whole is not None:
            return whole
        attended = self.self_attn(self.input_layernorm(x), cos, sin, key_mask, cache, layer)
        x, normalised = self.post_attention_layernorm.after(x, attended)
        return x + self.mlp(normalised).astype(x.dtype)


class DecoderModel(nn.Layer):
    """Token embedding, layers and final norm."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        scaling = config.rope_scaling or {}
        self.rope = rope.Rope(
            head_dim=config.head_dim,
            theta=config.rope_theta,
            kind=config.rope_kind,
            factor=float(scaling.get("factor", 1.0)),
            trained_length=config.max_position_embeddings,
            short_factor=tuple(map(float, scaling.get("short_factor", ()))),
            long_factor=tuple(map(float, scaling.get("long_factor", ()))),
            original_length=config.original_max_position_embeddings,
        )
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.LayerList([DecoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, position_ids, key_mask, cache, length: int = 0, last_only: bool = False) -> paddle.Tensor:
        """Normalised hidden states, [B, L, D], or with last_only those of the last position, [B, 1, D].

        Args:
            x: embeddings [B, L, D]. position_ids: int64 [B, L]. key_mask: bool [B, M] or None. cache: see
                `DecoderForCausalLM`. length: of the whole text, where it goes on behind these positions.
        """
        added = x.shape[1]
        cos, sin = (table.astype(x.dtype) for table in self.rope.tables(position_ids, length))
        x = wide_sum(x)
        whole = native_layers.decoder_layers(list(self.layers), x, cos, sin, key_mask, cache, last_only=last_only)
        if whole is None:
            for i, layer in enumerate(self.layers):
                x = layer(x, cos, sin, key_mask, cache, i)
        if cache is not None:
            cache.advance(added)
        x = x if whole is None else whole
        return self.norm(x[:, -1:] if last_only else x)


class DecoderForCausalLM(PretrainedModel):
    """The decoder with its output head."""

    config_class = DecoderConfig
    process_group = None  # of a tensor-parallel model

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.model = DecoderModel(config)
        self.lm_head = _linear(config.hidden_size, config.vocab_size, bias=False)
        # What `parallel` changes: of how many kv heads the layers here make keys and values, and where they lie.
        self.own_kv_heads = config.num_key_value_heads
        self.layer_devices: tuple[str, ...] | None = None

    def train(self):
        """As every layer's; weights kept in bfloat16 on a CPU become float32."""
        widen(self)
        return super().train()

    def get_input_embeddings(self) -> Embedding:
        return self.model.embed_tokens

    def new_cache(self, batch: int, capacity: int) -> ContiguousKVCache:
        """An empty KV cache for `batch` sequences of up to `capacity` positions."""
        c, dtype = self.config, self.model.norm.weight.dtype
        return ContiguousKVCache(
            c.num_hidden_layers, batch, capacity, self.own_kv_heads, c.head_dim, dtype, self.layer_devices
        )  # fmt: skip

    def forward(
        self,
        input_ids: paddle.Tensor | None = None,
        inputs_embeds: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        cache: KVCache | None = None,
        last_only: bool = False,
    ) -> paddle.Tensor:
        """Logits of the next token at every position.

        Args:
            input_ids: int64 [B, L], or inputs_embeds: [B, L, D].
            attention_mask: [B, M], 1 for tokens and 0 for padding, over the cached positions too; None: no padding.
            position_ids: int64 [B, L]; None: counted over the mask, as upstream (`prepare_inputs_for_generation`).
            cache: positions already seen; it is extended by L.
            last_only: only the last position's logits.
        Returns:
            float32 [B, L, V], or [B, 1, V].
        """
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        length = x.shape[1]
        past = 0 if cache is None else cache.length
        key_mask = None if attention_mask is None else attention_mask.astype("bool")
        if position_ids is None:
            position_ids = count_positions(key_mask, x.shape[0], past + length)[:, past:]
        x = self.model(x, position_ids, key_mask, cache, last_only=last_only)
        return self.lm_head(x).astype("float32")


def count_positions(key_mask: paddle.Tensor | None, batch: int, total: int) -> paddle.Tensor:
    """Position of each of `total` tokens, int64 [B, M]: counted over the unmasked ones; padding gets 1 as upstream."""
    if key_mask is None:
        return paddle.arange(total).unsqueeze(0).expand([batch, total])
    positions = key_mask.astype("int64").cumsum(-1) - 1
    return paddle.where(key_mask, positions, paddle.ones([], "int64"))
