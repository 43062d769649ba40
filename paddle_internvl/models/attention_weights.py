"""Attention weights of a decoder: the share of its attention that each new position pays to each key.

In: embeddings behind a filled KV cache, and the keys of interest. Out: weights as numbers, which the kernels of normal
generation never keep. The layers run as they do there; queries and softmax are computed once more beside them.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from paddle_internvl.models.decoder import DecoderAttention, DecoderForCausalLM
from paddle_internvl.models.kv_cache import ContiguousKVCache
from paddle_internvl.ops.norms import residual_stream

_MASKED = -1e30
_QUERIES = 16  # positions whose weights are kept at a time: all heads and keys of them


@paddle.no_grad()
def attention_weights(
    decoder: DecoderForCausalLM, embeds: paddle.Tensor, cache: ContiguousKVCache, keys: paddle.Tensor
) -> paddle.Tensor:
    """Attention of new positions to some of the keys: softmax(q·k / √E), mean over heads and layers.

    Args:
        decoder: the decoder.
        embeds: [1, L, D], embeddings of the new positions.
        cache: KV cache of one row with all positions before; it is extended by L.
        keys: int64 [V'], positions of the keys, below `cache.length`.
    Returns:
        float32 [L, V']; a row sums to 1 with the keys that are left out.
    Raises:
        ValueError: the decoder's layers are sharded or on several devices.
    """
    if decoder.process_group is not None or decoder.layer_devices is not None:
        raise ValueError("attention weights need a decoder that is whole and on one device; load it without tp or pp")
    decoder.require_unchanged_weights()
    model, past, added = decoder.model, cache.length, embeds.shape[1]
    positions = paddle.arange(past, past + added).unsqueeze(0)
    # dynamic rope: each position as in its own decode step, when the text was just so long
    cos, sin = (table.astype(embeds.dtype) for table in model.rope.tables(positions, positions + 1))
    x, total = residual_stream(embeds), paddle.zeros([added, keys.shape[0]])
    for index, layer in enumerate(model.layers):
        q = layer.self_attn.queries(layer.input_layernorm(x), cos, sin)  # [1, L, H, E]
        x = layer(x, cos, sin, cache=cache, index=index)
        total += _layer_weights(q[0], cache.keys(index, past + added)[0], keys, layer.self_attn)
    cache.advance(added)
    return total / len(model.layers)


def _layer_weights(
    q: paddle.Tensor, k: paddle.Tensor, keys: paddle.Tensor, attention: DecoderAttention
) -> paddle.Tensor:
    """Weights [L, V'] of one layer, mean over its heads.

    Args:
        q: [L, H, E].
        k: [M, K, E].
        keys: int64 [V'].
        attention: of the layer.
    """
    (added, heads, e), (total, kv, _) = q.shape, k.shape
    q = (q.astype("float32") * e**-0.5).reshape([added, kv, heads // kv, e]).transpose([1, 2, 0, 3])  # [K, G, L, E]
    k = k.astype("float32").transpose([1, 2, 0]).unsqueeze(1)  # [K, 1, E, M]
    distance = paddle.arange(total - added, total).unsqueeze(-1) - paddle.arange(total)  # [L, M]
    allowed = paddle.logical_and(distance >= 0, distance < (attention.window or total))
    rows = []
    for start in range(0, added, _QUERIES):
        scores = paddle.matmul(q[:, :, start : start + _QUERIES], k)
        scores = paddle.where(allowed[start : start + _QUERIES], scores, paddle.full([], _MASKED, "float32"))
        weights = F.softmax(scores).mean(axis=[0, 1])  # [L', M]
        rows.append(weights.index_select(keys, axis=1))
    return paddle.concat(rows)
