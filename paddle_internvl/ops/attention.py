"""Attention: softmax(q k^T) v with grouped kv heads, causal, with a key mask, a sliding window, or segments of a pack.

In: q [B, L, H, E] and k, v [B, M, K, E]. Out: [B, L, H, E]. The L queries are the last L of the M positions. Knows
nothing of layers or rotary embeddings. Implementations (`dispatch.CANDIDATES`), which tests hold equal:

    reference  the definition, all scores in memory; also for cards without flash attention
    blockwise  blocks of query rows over the keys they attend to: for a CPU without kernels
    native     the C++ library's blocked attention: no scores in memory, keys and values read from the cache in place;
               its gradient makes the scores again
    flash      Paddle's FlashAttention kernels on CUDA: without a mask; with FlashMask row bounds (padding, windows and
               segments of a prompt: no mask in memory); or with a mask (a query row behind a cache). Not Paddle's
               masked_ and block_multihead_attention: as documented they want q, k and v of equally many heads in one
               tensor, and keep caches of their own
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch

_ROWS = 256  # query rows per block of the blockwise implementation
_MASKED = -1e30  # finite: a row without any allowed key (left padding) must stay finite too
MASKED_HALF = {paddle.float16: -6e4, paddle.bfloat16: -1e30}  # the same within the range of these dtypes


def attention(
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    *,
    causal: bool,
    key_mask: paddle.Tensor | None = None,
    window: int | None = None,
    segment_ids: paddle.Tensor | None = None,
    lengths: paddle.Tensor | None = None,
    flash: bool = True,
) -> paddle.Tensor:
    """Scaled dot-product attention.

    Args:
        q: [B, L, H, E].
        k: [B, M, K, E] with H a multiple of K; query head h uses kv head h // (H // K).
        v: as k.
        causal: query i attends to key j only where j <= M - L + i.
        key_mask: bool [B, M], False for padding; None: no padding.
        window: with causal, query i attends to the last `window` of those keys; None: to all.
        segment_ids: int [B, L], not decreasing, of packed samples: a query attends to keys of its own segment only.
            Needs causal and L = M; excludes key_mask.
        lengths: int64 [B], for causal single queries (L = 1) of rows that differ in length: a row's keys are its first
            `lengths`, and its query is the last of them. Excludes key_mask.
        flash: False runs the reference where flash would run.
    Returns:
        [B, L, H, E] in q's dtype.
    """
    implementation = dispatch.choose("attention", q, q.shape[-1])
    if implementation == "flash" and not flash:
        implementation = "reference"
    if window is not None and window >= k.shape[1]:
        window = None
    if implementation == "native" and lengths is not None and paddle.is_grad_enabled():
        implementation = "blockwise"
    if implementation == "native" and (segment_ids is not None or paddle.is_grad_enabled()):
        return _NativeAttention.apply(q, k, v, key_mask, causal, window, _bounds(segment_ids))
    if implementation == "native":
        return operators.attention(q, k, v, causal=causal, key_mask=key_mask, window=window, lengths=lengths)
    if lengths is not None:
        distance = lengths.unsqueeze(-1) - paddle.arange(k.shape[1])  # [B, M]: 1 for the query's own position
        key_mask = distance >= 1 if window is None else paddle.logical_and(distance >= 1, distance <= window)
        causal, window = False, None
    return IMPLEMENTATIONS[implementation](q, k, v, causal, key_mask, window, segment_ids)


def cached_attention(
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    cache,
    layer: int,
    *,
    key_mask: paddle.Tensor | None = None,
    window: int | None = None,
    flash: bool = True,
) -> paddle.Tensor:
    """Causal attention of L new positions over a layer's KV cache, which is extended by their keys and values.

    Args:
        q: [B, L, H, E].
        k: [B, L, K, E], the new keys.
        v: as k.
        cache: a KV cache; see `models.kv_cache`.
        layer: index of the decoder layer.
        key_mask: bool [B, M] over cached and new positions, or None.
        window: see `attention`.
        flash: see `attention`.
    Returns:
        [B, L, H, E].
    """
    if dispatch.choose("attention", q, q.shape[-1]) == "native" and not paddle.is_grad_enabled():  # reads it in place
        cache.store(layer, k, v)
        view = cache.view(q.shape[1])
        return operators.attention_over_cache(
            q, view.keys[layer], view.values[layer], table=view.table, totals=view.totals, kv_heads=view.kv_heads,
            block=view.block, key_mask=key_mask, window=window,
        )  # fmt: skip
    k, v = cache.extend(layer, k, v)  # [B, M, K, E]
    return attention(q, k, v, causal=True, key_mask=key_mask, window=window, lengths=cache.lengths, flash=flash)


def _bounds(segment_ids: paddle.Tensor | None) -> list[list[int]] | None:
    """Of each row, the positions where segments begin, and its length; None: rows are one segment."""
    if segment_ids is None:
        return None
    rows = segment_ids.numpy()
    return [[0, *(1 + (row[1:] != row[:-1]).nonzero()[0]).tolist(), len(row)] for row in rows]


class _NativeAttention(PyLayer):
    """The native kernel with its gradient. Segments run one after the other: each is a causal square of its own."""

    @staticmethod
    def forward(ctx, q, k, v, key_mask, causal: bool, window: int | None, bounds: list[list[int]] | None):
        ctx.options = {"causal": causal, "window": window, "key_mask": key_mask}
        ctx.bounds = bounds
        ctx.save_for_backward(q, k, v)
        return _by_segments(bounds, lambda *x: (operators.attention(*x, **ctx.options),), q, k, v)[0]

    @staticmethod
    def backward(ctx, grad):
        inputs = ctx.saved_tensor()
        grads = _by_segments(
            ctx.bounds, lambda *x: operators.attention_grad(*x, **ctx.options), *inputs, grad.contiguous()
        )
        grads = tuple(None if x.stop_gradient else slope for x, slope in zip(inputs, grads))
        return grads if ctx.options["key_mask"] is None else (*grads, None)


def _by_segments(bounds: list[list[int]] | None, compute, *inputs) -> tuple[paddle.Tensor, ...]:
    """What `compute` makes of tensors [B, L, .., E], put together from its results for the segments."""
    if bounds is None:
        return compute(*inputs)
    rows = []
    for b, row in enumerate(bounds):
        parts = [compute(*(x[b : b + 1, start:stop] for x in inputs)) for start, stop in zip(row, row[1:])]
        rows.append([paddle.concat(results, axis=1) for results in zip(*parts)])
    return tuple(paddle.concat(results) for results in zip(*rows))


def _allowed(rows: range, keys: int, total: int, length: int, causal: bool, key_mask, window, segment_ids):
    """bool, broadcastable to [B, 1, 1, len(rows), keys]: keys that the query rows attend to; None for all."""
    allowed = None
    if causal and (window is not None or rows.start + total - length + 1 < keys):
        position = paddle.arange(rows.start, rows.stop).unsqueeze(-1) + (total - length)
        allowed = paddle.arange(keys) <= position
        if window is not None:
            allowed = paddle.logical_and(allowed, paddle.arange(keys) > position - window)
        allowed = allowed[None, None, None]
    masks = [] if key_mask is None else [key_mask[:, None, None, None, :keys]]
    if segment_ids is not None:
        same = segment_ids[:, rows.start : rows.stop, None] == segment_ids[:, None, :keys]
        masks.append(same[:, None, None])
    for mask in masks:
        allowed = mask if allowed is None else paddle.logical_and(allowed, mask)
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


def _blockwise(q, k, v, causal, key_mask, window, segment_ids):
    b, length, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    q = q.reshape([b, length, kv, heads // kv, e]).transpose([0, 2, 3, 1, 4])  # [B, K, G, L, E]
    k, v = (x.transpose([0, 2, 1, 3]).contiguous() for x in (k, v))  # [B, K, M, E]
    blocks = []
    for start in range(0, length, _ROWS):
        rows = range(start, min(start + _ROWS, length))
        keys = total - length + rows.stop if causal else total  # later keys are masked for every row of the block
        allowed = _allowed(rows, keys, total, length, causal, key_mask, window, segment_ids)
        blocks.append(_block(q[:, :, :, rows.start : rows.stop], k[:, :, :keys], v[:, :, :keys], allowed, e**-0.5))
    out = blocks[0] if len(blocks) == 1 else paddle.concat(blocks, axis=3)
    return out.transpose([0, 3, 1, 2, 4]).reshape([b, length, heads, e])


def reference(q, k, v, causal, key_mask, window, segment_ids):
    b, length, heads, e = q.shape
    total, kv = k.shape[1], k.shape[2]
    q = (q * e**-0.5).reshape([b, length, kv, heads // kv, e])  # scaled before the product: float16 would overflow
    q, k, v = q.transpose([0, 2, 3, 1, 4]), k.transpose([0, 2, 1, 3]), v.transpose([0, 2, 1, 3])
    scores = paddle.matmul(q, k.unsqueeze(2), transpose_y=True).astype("float32")  # [B, K, G, L, M]
    masks = []
    if causal:
        distance = paddle.arange(length).unsqueeze(-1) + (total - length) - paddle.arange(total)
        masks.append(paddle.logical_and(distance >= 0, distance < (window or total)))
    if key_mask is not None:
        masks.append(key_mask[:, None, None, None])
    if segment_ids is not None:
        masks.append((segment_ids[:, :, None] == segment_ids[:, None, :])[:, None, None])
    for mask in masks:
        scores = paddle.where(mask, scores, paddle.full([], _MASKED, "float32"))
    out = paddle.matmul(F.softmax(scores).astype(q.dtype), v.unsqueeze(2))  # [B, K, G, L, E]
    return out.transpose([0, 3, 1, 2, 4]).reshape([b, length, heads, e])


def _flash(q, k, v, causal, key_mask, window, segment_ids):
    b, length, total = q.shape[0], q.shape[1], k.shape[1]
    if length == 1:
        return _flash_one_query(q, k, v, key_mask, window if causal else None)
    if key_mask is None and window is None and segment_ids is None and (not causal or length == total):
        return F.flash_attention.flash_attention(q, k, v, causal=causal)[0]
    if causal and length == total:
        return F.flashmask_attention(q, k, v, _row_bounds(key_mask, window, segment_ids, b, total), causal=True)
    allowed = _allowed(range(length), total, total, length, causal, key_mask, window, segment_ids)[:, :, 0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_additive(allowed, [b, 1, length, total], q.dtype))


def _flash_one_query(q, k, v, key_mask, window):
    """One query behind M keys. The queries that share a kv head take the place of a row of queries, so that each key
    and value is read once."""
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
    """Additive mask of scores. Finite, unlike the one that Paddle makes of a bool mask: rows of padding stay finite."""
    hidden = paddle.full([], MASKED_HALF[dtype], dtype)
    return paddle.where(allowed, paddle.zeros([], dtype), hidden).expand(shape)


def _row_bounds(key_mask, window, segment_ids, batch: int, length: int) -> paddle.Tensor:
    """FlashMask row bounds, int32 [B, 1, L, 1]: per key of a causal square the query row from which on it is masked. A
    padding key is masked but for its own row, so that no row is without any key."""
    position = paddle.arange(length, dtype="int32")
    end = paddle.full([1, length], length, "int32")
    if segment_ids is not None:
        end = paddle.searchsorted(segment_ids, segment_ids, right=True).astype("int32")  # end of each key's segment
    if window is not None:
        end = paddle.minimum(end, position + window)
    bounds = end.expand([batch, length])
    if key_mask is not None:
        bounds = paddle.where(key_mask, bounds, position + 1)
    return bounds.reshape([batch, 1, length, 1])


IMPLEMENTATIONS = {"reference": reference, "blockwise": _blockwise, "flash": _flash}
