"""The one door to attention: softmax(q k^T) v with grouped kv heads, a causal rule and a key mask.

In: q [B, L, H, E] and k, v [B, M, K, E]. Out: [B, L, H, E]. The L queries are the last L of the M positions.
It knows nothing of layers, caches or rotary embeddings. Backends, which tests hold equal:

    plain    the definition, with all scores in memory: the reference, and the form for cards without flash attention
    chunked  blocks of query rows that see only the keys they may: the CPU form
    flash    Paddle's FlashAttention 2 kernels on CUDA
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

import paddle
import paddle.nn.functional as F

from paddle_internvl import runtime

_ROWS = 256  # query rows per block of the chunked form
_MASKED = -1e30  # finite: a row without any allowed key (left padding) must stay finite too

_forced: ContextVar[str | None] = ContextVar("attention_backend", default=None)


@contextlib.contextmanager
def use_backend(name: str):
    """Within this context `attention` uses the backend `name`; an unknown name is a ValueError."""
    if name not in _BACKENDS:
        raise ValueError(f"attention backend {name!r} is not known; use one of {', '.join(_BACKENDS)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


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
    backend = _forced.get() or runtime.choose_attention("gpu" if q.place.is_gpu_place() else "cpu")
    if backend == "flash" and not flash:
        backend = "plain"
    if window is not None and window >= k.shape[1]:
        window = None
    if lengths is not None:
        behind = lengths.unsqueeze(-1) - paddle.arange(k.shape[1])  # [B, M]: 1 for the query's own position
        key_mask = behind >= 1 if window is None else paddle.logical_and(behind >= 1, behind <= window)
        causal, window = False, None
    return _BACKENDS[backend](q, k, v, causal, key_mask, window)


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
    scores = paddle.matmul((q * scale).reshape([b, kv, g * r, e]), k, transpose_y=True)
    if allowed is not None:
        scores = scores.reshape([b, kv, g, r, -1])
        scores = paddle.where(allowed, scores, paddle.full([], _MASKED, scores.dtype)).reshape([b, kv, g * r, -1])
    if paddle.is_grad_enabled():
        weights = F.softmax(scores.astype("float32")).astype(q.dtype)
    else:
        weights = F.softmax_(scores.astype("float32")).astype(q.dtype)
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


def _plain(q, k, v, causal, key_mask, window):
    groups, e = q.shape[2] // k.shape[2], q.shape[3]
    k, v = (x.repeat_interleave(groups, axis=2) for x in (k, v))  # [B, M, H, E]
    scores = paddle.einsum("blhe,bmhe->bhlm", q, k).astype("float32") * e**-0.5
    length, total = q.shape[1], k.shape[1]
    if causal:
        distance = paddle.arange(length).unsqueeze(-1) + (total - length) - paddle.arange(total)
        seen = paddle.logical_and(distance >= 0, distance < (window or total))
        scores = paddle.where(seen, scores, paddle.full([], _MASKED))
    if key_mask is not None:
        scores = paddle.where(key_mask[:, None, None], scores, paddle.full([], _MASKED))
    return paddle.einsum("bhlm,bmhe->blhe", F.softmax(scores).astype(q.dtype), v)


def _flash(q, k, v, causal, key_mask, window):
    length, total = q.shape[1], k.shape[1]
    if length == 1 and window is None:
        causal = False  # one query at the end sees every key
    if key_mask is None and window is None and (not causal or length == total):
        return F.flash_attention.flash_attention(q, k, v, causal=causal)[0]
    allowed = _allowed(range(length), total, total, length, causal, key_mask, window)[:, :, 0]
    groups = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(groups, axis=2) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed.expand([q.shape[0], 1, length, total]))


_BACKENDS = {"plain": _plain, "chunked": _chunked, "flash": _flash}
