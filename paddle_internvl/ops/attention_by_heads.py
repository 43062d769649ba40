"""Attention head by head, one core each: the form for a CPU without kernels.

In: q, k and v with the heads in front. Out: the same for the queries. Paddle's products use every core, but its softmax
one; a head's share of all three on one core each keeps them busy. Paddle's operations let other Python threads run, and
a thread may tell the matrix library (MKL) to stay on one core. It knows nothing of layers or masks but what it is told.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import paddle
import paddle.nn.functional as F

from paddle_internvl import runtime

_SCORES = 1 << 20  # of a piece of work, about
_WORTH = 1 << 20  # scores in all from which on handing them to threads pays
_HIDDEN = -1e30  # finite: a row without any allowed key must stay finite too


def worth(q: paddle.Tensor, total: int) -> bool:
    """Whether queries [B, L, H, E] over `total` keys are enough work for threads, and there are some."""
    b, length, heads, _ = q.shape
    return b * length * heads * total >= _WORTH and runtime.cpu_threads() > 1


def by_heads(q, k, v, causal: bool, allowed: Callable[[range, int], paddle.Tensor | None]) -> paddle.Tensor:
    """softmax(q k^T) v, without gradients.

    Args:
        q: [B, K, G, L, E], scaled. k, v: [B, K, M, E]. causal: queries are the last L of M positions.
        allowed: for some query rows and the first so many keys, which the rows may see, bool [B or 1, 1, 1, R or 1,
            keys]; None: all.
    Returns:
        [B, K, G, L, E].
    """
    b, kv, g, length, e = q.shape
    total = k.shape[2]
    step = min(length, max(1, _SCORES // (g * total)))
    step = -(-length // -(-length // step))  # blocks of nearly equal size
    blocks = [range(start, min(start + step, length)) for start in range(0, length, step)]
    seen = [total - length + rows.stop if causal else total for rows in blocks]
    masks = [allowed(rows, keys) for rows, keys in zip(blocks, seen)]

    def piece(row: int, head: int, number: int) -> paddle.Tensor:
        rows, keys, mask = blocks[number], seen[number], masks[number]
        mine = q[row, head, :, rows.start : rows.stop].reshape([-1, e])
        scores = paddle.matmul(mine, k[row, head, :keys], transpose_y=True)
        if mask is not None:
            mask = mask[row if mask.shape[0] > 1 else 0, 0]  # [1, R or 1, keys]
            scores = paddle.where(mask, scores.reshape([g, len(rows), keys]), paddle.full([], _HIDDEN, "float32"))
            scores = scores.reshape([-1, keys])
        return paddle.matmul(F.softmax_(scores), v[row, head, :keys]).reshape([g, len(rows), e])

    order = [(row, head, number) for row in range(b) for head in range(kv) for number in range(len(blocks))]
    done = list(_threads(os.getpid()).map(lambda work: piece(*work), order))
    heads = [paddle.concat(done[at : at + len(blocks)], axis=1) for at in range(0, len(done), len(blocks))]
    return paddle.stack(heads).reshape([b, kv, g, length, e])


def one_query(q, k, v, allowed: paddle.Tensor | None) -> paddle.Tensor:
    """softmax(q k^T) v of one query a row, without gradients, and without a copy of keys and values in the order of
    heads: all heads' keys beside each other times a matrix that has each query where its head's keys are, else zeros.

    Args:
        q: [B, H, E], scaled. k, v: [B, M, K, E]. allowed: bool [B or 1, 1, M] or None.
    Returns:
        [B, H, E].
    """
    (b, heads, e), (total, kv) = q.shape, k.shape[1:3]
    own = paddle.eye(kv, dtype=q.dtype).reshape([kv, 1, kv, 1])
    spread = q.reshape([b, kv, heads // kv, e]).transpose([0, 1, 3, 2]).unsqueeze(3) * own  # [B, K, E, K, G]
    scores = paddle.matmul(k.reshape([b, total, kv * e]), spread.reshape([b, kv * e, heads])).transpose([0, 2, 1])
    if allowed is not None:
        scores = paddle.where(allowed, scores, paddle.full([], _HIDDEN, scores.dtype))
    out = paddle.matmul(F.softmax_(scores.contiguous()), v.reshape([b, total, kv * e]))  # [B, H, K * E]
    out = out.reshape([b, kv, heads // kv, kv, e]).diagonal(axis1=1, axis2=3)  # [B, G, E, K]
    return out.transpose([0, 3, 1, 2]).reshape([b, heads, e])


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(runtime.cpu_threads(), "attention", initializer=_stay_on_one_core)


def _stay_on_one_core() -> None:
    """Let the matrix products of this thread use one core; without MKL there is nothing to tell."""
    library = Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"
    if library.exists():
        ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local(1)
