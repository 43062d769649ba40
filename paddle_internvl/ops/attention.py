"""The one door to attention: softmax(q k^T) v with grouped kv heads, a causal rule and a key mask.

In: q [B, L, H, E] and k, v [B, M, K, E]. Out: [B, L, H, E]. The L queries are the last L of the M positions.
It knows nothing of layers, caches or rotary embeddings. Forms (`forms.FORMS`), which tests hold equal:

    plain    the definition, with all scores in memory: the reference, and the form for cards without flash attention
    native   the library's blocked attention on a CPU: no scores in memory, keys and values where they lie
    heads    `attention_by_heads`, for a CPU without kernels
    chunked  blocks of query rows that see only the keys they may: for a CPU with gradients, or little to do
    flash    Paddle's FlashAttention kernels on CUDA: without a mask; with bounds of what each key shows itself to
             (padding and windows of a prompt: no mask in memory); or with a mask (a row of queries behind a cache).
             Not Paddle's masked_ and block_multihead_attention: as documented they want q, k and v of equally many
             heads in one tensor, and keep caches of their own
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from paddle_internvl.kernels import library
from paddle_internvl.kernels.layers import KVView
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.attention_by_heads import by_heads, one_query, worth

_ROWS = 256  # query rows per block of the chunked form
_MASKED = -1e30  # finite: a row without any allowed key (left padding) must stay finite too
_MASKED_HALF = {paddle.float16: -6e4, paddle.bfloat16: -1e30}  # what a mask of these dtypes can hold


def use_backend(name: str):
    """Context within which `attention` takes the form `name`; an unknown name is a ValueError."""
    return dispatch.use_forms(attention=name)


def attention(
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    *,
    causal: bool,
    key_mask: paddle.Tensor | None = None,
    window: int | None = None,
    flash: bool = True,
    lengths: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Scaled dot-product attention.

    Args:
        q: [B, L, H, E]. k, v: [B, M, K, E] with H a multiple of K; query head h reads kv head h // (H // K).
        causal: query i sees key j only where j <= M - L + i.
        key_mask: bool [B, M], False for padding; None where nothing is padded.
        window: with causal, query i sees only the last `window` of those keys; None: all.
        flash: False takes the plain form where the flash form would be taken.
        lengths: int64 [B], for causal single queries (L = 1) of rows that differ in length: a row's keys are its first
            so many, and its query is the last of those. Excludes key_mask.
    Returns:
        [B, L, H, E] in q's dtype.
    """
    form = dispatch.choose_form("attention", q, q.shape[-1])
    if form == "flash" and not flash:
        form = "plain"
    if window is not None and window >= k.shape[1]:
        window = None
    if form == "native":
        return _native(q, k, v, causal, key_mask, window, lengths)
    if lengths is not None:
        behind = lengths.unsqueeze(-1) - paddle.arange(k.shape[1])  # [B, M]: 1 for the query's own position
        key_mask = behind >= 1 if window is None else paddle.logical_and(behind >= 1, behind <= window)
        causal, window = False, None
    return _FORMS[form](q, k, v, causal, key_mask, window)


def attends_where_it_lies(q: paddle.Tensor) -> bool:
    """Whether `attention_over` is the form to take for queries [B, L, H, E]."""
    return dispatch.choose_form("attention", q, q.shape[-1]) == "native"


def attention_over(
    q: paddle.Tensor, memory: KVView, layer: int, *, key_mask: paddle.Tensor | None, window: int | None
) -> paddle.Tensor:
    """Causal attention over a layer's keys and values where a cache holds them, by the form 'native'.

    Args:
        q: [B, L, H, E], the last L positions. memory: what the cache holds. key_mask, window: as of `attention`.
    Returns:
        [B, L, H, E].
    """
    return library.run(
        "internvl_attention", q, memory.keys[layer], memory.values[layer], memory.table, memory.totals, key_mask,
        memory.kv_heads, memory.block, 0, window or 0, 1,
    )  # fmt: skip


def _native(q, k, v, causal, key_mask, window, lengths=None):
    return library.run(
        "internvl_attention", q, k, v, None, lengths, key_mask, k.shape[2], 0, k.shape[1], window or 0, int(causal)
    )


def _allowed(rows: range, keys: int, total: int, length: int, causal: bool, key_mask, window) -> paddle.Tensor | None:
    """bool, broadcastable to [B, 1, 1, len(rows), keys]: which keys the query rows may see; None for all."""
    allowed = None
    if causal and (window is not None or rows.start + total - length + 1 < keys):
        position = paddle.arange(rows.start, rows.stop).unsqueeze(-1) + (total - length)
        allowed = paddle.arange(keys) <= position
        if window is not None:
            allowed = paddle.logical_and(allowed, paddle.arange(keys) > position - window)
        allowed = allowed[None, None, None]
    if key_mask is not None:
        real = key_mask[:, None, None, None, :keys]
        allowed = real if allowed is None else paddle.logical_and(allowed, real)
    return allowed


def _block(q, k, v, allowed, scale) -> paddle.Tensor:
    """q [B, K, G, R, E], k and v [B, K, M, E] -> [B, K, G, R, E]; kv heads are shared, never repeated."""
    b, kv, g, r, e = q.shape
    scores = paddle.matmul((q * scale).reshape([b, kv, g * r, e]), k, transpose_y=True).astype("float32")
    if allowed is not None:
        scores = scores.reshape([b, kv, g, r, -1])
        scores = paddle.where(allowed, scores, paddle.full([], _MASKED, "float32")).reshape([b, kv, g * r, -1])
    weights = (F.softmax if paddle.is_grad_enabled() else F.softmax_)(scores).astype(q.dtype)
    return paddle.matmul(weights, v).reshape([b, kv, g, r, e])


def _chunked(q, k, v, causal, key_mask, window):
    b, length, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    q = q.reshape([b, length, kv, heads // kv, e]).transpose([0, 2, 3, 1, 4])  # [B, K, G, L, E]
    k, v = (x.transpose([0, 2, 1, 3]).contiguous() for x in (k, v))  # [B, K, M, E]
    blocks = []
    for start in range(0, length, _ROWS):
        rows = range(start, min(start + _ROWS, length))
        keys = total - length + rows.stop if causal else total  # later keys are hidden from every row of the block
        allowed = _allowed(rows, keys, total, length, causal, key_mask, window)
        blocks.append(_block(q[:, :, :, rows.start : rows.stop], k[:, :, :keys], v[:, :, :keys], allowed, e**-0.5))
    out = blocks[0] if len(blocks) == 1 else paddle.concat(blocks, axis=3)
    return out.transpose([0, 3, 1, 2, 4]).reshape([b, length, heads, e])


def _heads(q, k, v, causal, key_mask, window):
    b, length, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    if length == 1:
        allowed = _allowed(range(1), total, total, 1, causal, key_mask, window)
        seen = None if allowed is None else allowed[:, 0, 0]
        return one_query(q[:, 0] * e**-0.5, k, v, seen).unsqueeze(1)
    if not worth(q, total):
        return _chunked(q, k, v, causal, key_mask, window)
    q = (q * e**-0.5).reshape([b, length, kv, heads // kv, e]).transpose([0, 2, 3, 1, 4]).contiguous()
    k, v = (x.transpose([0, 2, 1, 3]).contiguous() for x in (k, v))  # [B, K, M, E]
    out = by_heads(q, k, v, causal, lambda rows, keys: _allowed(rows, keys, total, length, causal, key_mask, window))
    return out.transpose([0, 3, 1, 2, 4]).reshape([b, length, heads, e])


def _plain(q, k, v, causal, key_mask, window):
    b, length, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    q = (q * e**-0.5).reshape([b, length, kv, heads // kv, e])  # scaled before the product: float16 would overflow
    q, k, v = q.transpose([0, 2, 3, 1, 4]), k.transpose([0, 2, 1, 3]), v.transpose([0, 2, 1, 3])
    scores = paddle.matmul(q, k.unsqueeze(2), transpose_y=True).astype("float32")  # [B, K, G, L, M]
    if causal:
        distance = paddle.arange(length).unsqueeze(-1) + (total - length) - paddle.arange(total)
        seen = paddle.logical_and(distance >= 0, distance < (window or total))
        scores = paddle.where(seen, scores, paddle.full([], _MASKED, "float32"))
    if key_mask is not None:
        scores = paddle.where(key_mask[:, None, None, None], scores, paddle.full([], _MASKED, "float32"))
    out = paddle.matmul(F.softmax(scores).astype(q.dtype), v.unsqueeze(2))  # [B, K, G, L, E]
    return out.transpose([0, 3, 1, 2, 4]).reshape([b, length, heads, e])


def _flash(q, k, v, causal, key_mask, window):
    b, length, total = q.shape[0], q.shape[1], k.shape[1]
    if length == 1:
        return _flash_one(q, k, v, key_mask, window if causal else None)
    if key_mask is None and window is None and (not causal or length == total):
        return F.flash_attention.flash_attention(q, k, v, causal=causal)[0]
    if causal and length == total:
        return F.flashmask_attention(q, k, v, _hidden_from(key_mask, window, b, total), causal=True)
    allowed = _allowed(range(length), total, total, length, causal, key_mask, window)[:, :, 0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_additive(allowed, [b, 1, length, total], q.dtype))


def _flash_one(q, k, v, key_mask, window):
    """One query behind M keys. The queries that share a kv head stand in the place of a row of queries, so that each
    key and value is read once."""
    b, _, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    q = q.reshape([b, kv, heads // kv, e]).transpose([0, 2, 1, 3])  # [B, G, K, E]
    if window is not None:
        near = (paddle.arange(total) >= total - window).unsqueeze(0)
        key_mask = near if key_mask is None else paddle.logical_and(near, key_mask)
    if key_mask is None:
        out = F.flash_attention.flash_attention(q, k, v)[0]
    else:
        mask = _additive(key_mask[:, None, None], [b, 1, heads // kv, total], q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose([0, 2, 1, 3]).reshape([b, 1, heads, e])


def _additive(allowed, shape, dtype) -> paddle.Tensor:
    """A mask to add to scores. Finite, unlike the one that Paddle makes of a bool mask: rows of padding stay finite."""
    hidden = paddle.full([], _MASKED_HALF[dtype], dtype)
    return paddle.where(allowed, paddle.zeros([], dtype), hidden).expand(shape)


def _hidden_from(key_mask, window, batch: int, length: int) -> paddle.Tensor:
    """int32 [B, 1, L, 1]: the row from which on a key of a causal square is hidden. Padding shows itself to its own
    row alone, so that no row is without any key."""
    at = paddle.arange(length, dtype="int32")
    last = paddle.full([length], length, "int32") if window is None else (at + window).clip(max=length)
    hidden = last.expand([batch, length]) if key_mask is None else paddle.where(key_mask, last, at + 1)
    return hidden.reshape([batch, 1, length, 1])


_FORMS = {"plain": _plain, "chunked": _chunked, "heads": _heads, "native": _native, "flash": _flash}
