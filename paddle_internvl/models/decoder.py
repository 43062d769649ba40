"""The decoder of every language backbone: embeddings to hidden states, hidden states to logits.

Families differ in fields of `DecoderConfig`, not in code. Parameters carry the Llama spelling; the mapping tables in
`convert` take the checkpoints' fused layouts apart.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_internvl.configuration import DecoderConfig
from paddle_internvl.models.experts import SparseMLP, load_balancing_loss
from paddle_internvl.models.kv_cache import ContiguousKVCache, KVCache
from paddle_internvl.models.pretrained import InternVLPretrainedModel
from paddle_internvl.models.recomputation import recompute_layer
from paddle_internvl.ops import rope
from paddle_internvl.ops.activations import swiglu
from paddle_internvl.ops.attention import attention, cached_attention
from paddle_internvl.ops.native_layers import NativeDecoder, NativeLayer
from paddle_internvl.ops.norms import RMSNorm, residual_stream


def _linear(config: DecoderConfig, inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    """Initialised as upstream's `_init_weights`: normal weights, zero biases."""
    weight = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, config.initializer_range))
    return nn.Linear(inputs, outputs, weight_attr=weight, bias_attr=None if bias else False)


class DecoderAttention(nn.Layer):
    """Causal self-attention with K kv heads that H query heads share."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        d, e = config.hidden_size, config.head_dim
        q_width, kv_width = config.num_attention_heads * e, config.num_key_value_heads * e
        self.flash = True
        self.window = config.window
        self.head_dim = e
        self.q_proj = _linear(config, d, q_width, config.qkv_bias)
        self.k_proj = _linear(config, d, kv_width, config.qkv_bias)
        self.v_proj = _linear(config, d, kv_width, config.qkv_bias)
        self.o_proj = _linear(config, q_width, d, config.output_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:  # of each head by itself
            self.q_norm, self.k_norm = RMSNorm(e, config.rms_norm_eps), RMSNorm(e, config.rms_norm_eps)

    def queries(self, x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
        """Queries [B, L, H, E] of normalised hidden states x [B, L, D], with their positions."""
        q = self.q_proj(x).reshape([*x.shape[:2], -1, self.head_dim])
        return rope.apply(self.q_norm(q) if self.qk_norm else q, cos, sin)

    def forward(self, x, cos, sin, key_mask, segment_ids, cache, layer: int) -> paddle.Tensor:  # x [B, L, D]
        b, length, _ = x.shape
        q = self.queries(x, cos, sin)
        k = self.k_proj(x).reshape([b, length, -1, self.head_dim])  # [B, L, K, E]
        v = self.v_proj(x).reshape([b, length, -1, self.head_dim])
        k = rope.apply(self.k_norm(k) if self.qk_norm else k, cos, sin)
        options = {"key_mask": key_mask, "window": self.window, "flash": self.flash}
        if cache is None:
            y = attention(q, k, v, causal=True, segment_ids=segment_ids, **options)
        else:
            y = cached_attention(q, k, v, cache, layer, **options)
        return self.o_proj(y.reshape([b, length, -1]))


class DecoderMLP(nn.Layer):
    """Gated MLP: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.gate_proj = _linear(config, config.hidden_size, config.intermediate_size)
        self.up_proj = _linear(config, config.hidden_size, config.intermediate_size)
        self.down_proj = _linear(config, config.intermediate_size, config.hidden_size)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Layer):
    """Pre-norm attention, and an MLP or a mixture of experts.

    Args:
        config: of the decoder.
        sparse: whether the layer has experts.
    Attributes:
        native: the layer as one native call, of a model prepared for inference.
    """

    def __init__(self, config: DecoderConfig, sparse: bool = False):
        super().__init__()
        self.native: NativeLayer | None = None
        self.self_attn = DecoderAttention(config)
        self.mlp = SparseMLP(config) if sparse else DecoderMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, cos, sin, key_mask=None, segment_ids=None, cache=None, index: int = 0) -> paddle.Tensor:
        """The layer's output; without a cache a function of tensors, so that it can be recomputed. A balanced sparse
        layer in training returns the router's logits too, see `SparseMLP`.

        Args:
            x: [B, L, D].
            cos: [B or 1, L, 1, E].
            sin: as cos.
            key_mask: bool [B, M] or None.
            segment_ids: int [B, L] of a pack, or None.
            cache: KV cache or None.
            index: number of the layer, in the cache.
        """
        if self.native is not None and segment_ids is None and not self.native.hooked:
            return self.native.decode(x, cos, sin, key_mask, cache, index)
        attended = self.self_attn(self.input_layernorm(x), cos, sin, key_mask, segment_ids, cache, index)
        x, normalised = self.post_attention_layernorm.add(x, attended)
        y = self.mlp(normalised)
        return (x + y[0].astype(x.dtype), y[1]) if isinstance(y, tuple) else x + y.astype(x.dtype)


class DecoderModel(nn.Layer):
    """Token embedding, layers and final norm.

    Attributes:
        native: all layers as one native call, of a model prepared for inference.
        enable_recompute: whether layers are recomputed in the backward pass instead of keeping their activations.
        router_logits: of the last forward pass, by balanced sparse layer.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        scaling = config.rope_scaling or {}
        self.native: NativeDecoder | None = None
        self.enable_recompute = False
        self.router_logits: list[paddle.Tensor] = []
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
        normal = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, config.initializer_range))
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=normal)
        sparse = config.sizes.experts.layers if config.sizes.experts else ()
        self.layers = nn.LayerList([DecoderLayer(config, n in sparse) for n in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x, position_ids, key_mask=None, cache=None, length: int = 0, last_only: bool = False, segment_ids=None
    ) -> paddle.Tensor:
        """Hidden states after the final norm.

        Args:
            x: embeddings [B, L, D].
            position_ids: int64 [B, L].
            key_mask: bool [B, M] or None.
            cache: KV cache or None; it is extended by L.
            length: of the whole text, where it goes on behind these positions.
            last_only: return only the last position, [B, 1, D].
            segment_ids: int [B, L] of a pack, or None.
        Returns:
            [B, L, D].
        """
        added = x.shape[1]
        if segment_ids is not None and self.rope.stable_length < float("inf"):
            length = _segment_lengths(segment_ids)
        cos, sin = (table.astype(x.dtype) for table in self.rope.tables(position_ids, length))
        x = residual_stream(x)
        self.router_logits = []
        if self.native is not None and segment_ids is None and not self.native.hooked:
            x = self.native(x, cos, sin, key_mask, cache, last_only)
        elif self.enable_recompute and self.training and cache is None and paddle.is_grad_enabled():
            for layer in self.layers:
                x = self._without_router_logits(recompute_layer(layer, x, cos, sin, key_mask, segment_ids))
        else:
            for index, layer in enumerate(self.layers):
                x = self._without_router_logits(layer(x, cos, sin, key_mask, segment_ids, cache, index))
        if cache is not None:
            cache.advance(added)
        return self.norm(x[:, -1:] if last_only else x)

    def _without_router_logits(self, output) -> paddle.Tensor:
        """Output of a layer; the router's logits beside it are kept."""
        if not isinstance(output, tuple):
            return output
        self.router_logits.append(output[1])
        return output[0]


class DecoderForCausalLM(InternVLPretrainedModel):
    """The decoder with its output head.

    Attributes:
        balancing_loss: load-balancing loss of the last forward pass in training, times its weight; None: there is none.
        local_kv_heads: K of the layers here; fewer than the config's where the model is sharded.
        layer_devices: device of each layer, where they are on several; set by `parallel.placement`.
    """

    config_class = DecoderConfig
    process_group = None  # of a tensor-parallel model

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.model = DecoderModel(config)
        self.lm_head = _linear(config, config.hidden_size, config.vocab_size)
        self.local_kv_heads = config.num_key_value_heads
        self.layer_devices: tuple[str, ...] | None = None
        self.balancing_loss: paddle.Tensor | None = None

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def new_cache(self, batch: int, capacity: int) -> ContiguousKVCache:
        """An empty KV cache for `batch` sequences of up to `capacity` positions."""
        c, dtype = self.config, self.model.norm.weight.dtype
        return ContiguousKVCache(
            c.num_hidden_layers, batch, capacity, self.local_kv_heads, c.head_dim, dtype, self.layer_devices
        )  # fmt: skip

    def hidden_states(
        self,
        input_ids: paddle.Tensor | None = None,
        inputs_embeds: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        cache: KVCache | None = None,
        last_only: bool = False,
        segment_ids: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Hidden states after the final norm, which `compute_logits` turns into logits.

        Args:
            input_ids: int64 [B, L].
            inputs_embeds: [B, L, D] in place of input_ids.
            attention_mask: [B, M], 1 for tokens and 0 for padding, over the cached positions too; None: no padding.
            position_ids: int64 [B, L]; None: counted over the mask, as upstream (`prepare_inputs_for_generation`).
            cache: KV cache; it is extended by L.
            last_only: return only the last position.
            segment_ids: int [B, L], not decreasing, of packed samples, which don't attend to each other; needs
                position_ids, and excludes attention_mask and cache.
        Returns:
            [B, L, D], or [B, 1, D].
        Raises:
            WeightsChangedError: see `require_unchanged_weights`.
        """
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        length = x.shape[1]
        past = 0 if cache is None else cache.length
        if length > 1 or cache is None:  # a prompt: a decode step is too short for the check
            self.require_unchanged_weights()
        if segment_ids is not None and (position_ids is None or attention_mask is not None or cache is not None):
            raise ValueError("segment_ids need position_ids, and exclude attention_mask and cache")
        key_mask = None if attention_mask is None else attention_mask.astype("bool")
        if position_ids is None:
            position_ids = count_positions(key_mask, x.shape[0], past + length)[:, past:]
        hidden = self.model(x, position_ids, key_mask, cache, last_only=last_only, segment_ids=segment_ids)
        logits, self.balancing_loss = self.model.router_logits, None
        if logits:
            loss = load_balancing_loss(logits, self.config.num_experts_per_tok, attention_mask)
            self.balancing_loss = self.config.router_aux_loss_coef * loss
        return hidden

    def compute_logits(self, hidden: paddle.Tensor) -> paddle.Tensor:
        """Logits of the next token, float32 [.., V], from hidden states [.., D]."""
        return self.lm_head(hidden).astype("float32")

    def forward(
        self,
        input_ids=None,
        inputs_embeds=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        last_only=False,
        segment_ids=None,
    ) -> paddle.Tensor:
        """Logits of the next token at every position, float32 [B, L, V]: `compute_logits` of `hidden_states`. See there
        for the arguments."""
        return self.compute_logits(
            self.hidden_states(
                input_ids, inputs_embeds, attention_mask, position_ids, cache, last_only, segment_ids
            )
        )  # fmt: skip


def _segment_lengths(segment_ids: paddle.Tensor) -> paddle.Tensor:
    """Length of each position's segment, int64 [B, L]."""
    ends = paddle.searchsorted(segment_ids, segment_ids, right=True)
    return ends - paddle.searchsorted(segment_ids, segment_ids)


def count_positions(key_mask: paddle.Tensor | None, batch: int, total: int) -> paddle.Tensor:
    """Position of each of `total` tokens, int64 [B, M]: counted over the unmasked ones; padding gets 1 as upstream."""
    if key_mask is None:
        return paddle.arange(total).unsqueeze(0).expand([batch, total])
    positions = key_mask.astype("int64").cumsum(-1) - 1
    return paddle.where(key_mask, positions, paddle.ones([], "int64"))
