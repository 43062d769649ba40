"""The native library's operators as functions with named arguments. float32 tensors on a CPU, without gradients.

In and out: tensors. `csrc/operators_*.cc` checks shapes and holds the definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.kernels.library import run


def linear(
    x, weight, *, scales=None, offsets=None, bias=None, group: int = -1, bfloat16: bool = False,
    int8_activations: bool = False,
):  # fmt: skip
    """Linear layer: x W + b.

    Args:
        x: [.., K].
        weight: float32 or bfloat16 [K, N]; int8 [K, N]; or uint8 [K / 2, N], two 4-bit rows a byte.
        scales: float32 [N] or [K / group, N], of integer weights.
        offsets: as scales; added after scaling (AWQ's zero points).
        bias: [N] or None.
        group: rows that share a scale; -1: all.
        bfloat16: round x to bfloat16; see `library.bfloat16_isa`.
        int8_activations: round rows of x to int8 where there are many, see `csrc/int8.h`; of integer weights.
    Returns:
        [.., N].
    """
    rest = (None,) * 5  # residual, layer scale, and the second weight of swiglu
    arithmetic = (int(bfloat16), int(int8_activations))
    return run("internvl_linear", x, weight, scales, offsets, bias, *rest, group, 0, *arithmetic)


def attention(q, k, v, *, causal: bool, key_mask=None, window: int | None = None, lengths=None):
    """Softmax attention of q [B, L, H, E] over k and v [B, M, K, E]; see `ops.attention.attention`."""
    return run(
        "internvl_attention", q, k, v, None, lengths, key_mask, k.shape[2], 0, k.shape[1], window or 0, int(causal)
    )


def attention_grad(q, k, v, grad, *, causal: bool, key_mask=None, window: int | None = None):
    """Gradients of q, k and v of `attention`, for that of its result, `grad` [B, L, H, E]."""
    grad_q, *shared = run("internvl_attention_backward", q, k, v, grad, key_mask, window or 0, int(causal))
    group = q.shape[2] // k.shape[2]  # query heads of a kv head
    return grad_q, *(x if group == 1 else x.reshape([*k.shape[:3], group, -1]).sum(3) for x in shared)


def attention_over_cache(q, keys, values, *, table, totals, kv_heads: int, block: int, key_mask=None, window=None):
    """Causal attention of q [B, L, H, E] over a layer's keys and values in the KV cache; see `structs.KVView`."""
    return run(
        "internvl_attention", q, keys, values, table, totals, key_mask, kv_heads, block, 0, window or 0, 1
    )  # fmt: skip


def rms_norm(x, weight, eps: float):
    """RMSNorm of x [.., W]."""
    return run("internvl_norm", x, weight, None, eps, 0)


def add_rms_norm(x, y, weight, eps: float):
    """The residual sum x + y, and its RMSNorm."""
    return tuple(run("internvl_add_norm", x, y, weight, None, eps, 0))


def layer_norm(x, weight, bias, eps: float):
    """LayerNorm of x [.., W]."""
    return run("internvl_norm", x, weight, bias, eps, 1)


def rope(x, cos, sin):
    """Rotary embedding of x [B, L, H, E] by tables [B, L, 1, E]."""
    return run("internvl_rope", x, cos, sin)


def gelu(x):
    """GELU by erf."""
    return run("internvl_elements", x, None, None, 0)


def swiglu(gate, up):
    """silu(gate) * up."""
    return run("internvl_elements", gate, up, None, 1)


def mapped_file(file: Path, offset: int, shape: Sequence[int], dtype: str):
    """A memory-mapped tensor: a piece of a file, copy on write.

    Args:
        file: path of the file.
        offset: of the first byte, a multiple of the item size.
        shape: of the tensor.
        dtype: Paddle's name of the item type.
    """
    import paddle

    return run("internvl_mapped", paddle.zeros([1], dtype), str(file), offset, list(shape))
