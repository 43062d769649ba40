"""Quantised weights of 8 and 4 bits: quantisation, Paddle's packed layout, and AWQ's. numpy arrays only.

In: weights [K, N] (in, out) as floats or small integers. Out: bytes and scales, and back.

Paddle's weight-only layout (compute capability 7.5 to 10.0): the weight is held column by column, [N, K]. Along K, rows
are reordered in blocks of 16 (8 bit) or 32 (4 bit); 2 (4) neighbouring columns take turns every 64 rows; the values are
stored with an offset of 128 (8); and within four bytes (eight nibbles) their order is that of the tables below.
Tests compare the bytes with those of Paddle's `weight_quantize`.

AWQ's layout (gemm, 4 bit): `qweight` int32 [K, N/8]; the nibbles of a column, lowest first, are the output channels
8c + 0, 2, 4, 6, 1, 3, 5, 7. `qzeros` int32 [K/g, N/8] likewise; `scales` float16 [K/g, N]. w = (q - zero) * scale.
Source: LMDeploy's and AutoAWQ's files; upstream publishes them as `-AWQ` folders.
"""

from __future__ import annotations

import numpy as np

BITS = {"weight_only_int8": 8, "weight_only_int4": 4}
GROUP_SIZES = (-1, 64, 128)  # of Paddle's layout: inputs that share a scale; -1: all
_LARGEST = {8: 127, 4: 7}
_ROWS = {  # order of the rows within a block
    8: [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15],
    4: [0, 1, 8, 9, 16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27,
        4, 5, 12, 13, 20, 21, 28, 29, 6, 7, 14, 15, 22, 23, 30, 31],
}  # fmt: skip
_COLUMNS = {8: 2, 4: 4}  # columns that take turns
_ORDER = {8: [0, 2, 1, 3], 4: [0, 2, 4, 6, 1, 3, 5, 7]}  # of bytes in four, of nibbles in eight
_TURN = 64  # rows of a column at a time
_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def packing_obstacle(k: int, n: int, bits: int, group_size: int = -1, padded: bool = False) -> str | None:
    """The reason why Paddle's packed layout can't hold a weight [k, n], whose columns may be `padded`; None: it can."""
    if k % _TURN:
        return f"its {k} inputs are not a multiple of {_TURN}"
    if n % (4 * _COLUMNS[bits]) and not padded:
        return f"its {n} outputs are not a multiple of {4 * _COLUMNS[bits]}"
    if group_size not in GROUP_SIZES:
        return f"group_size {group_size} is none of {', '.join(map(str, GROUP_SIZES))}"
    if group_size > 0 and k % group_size:
        return f"its {k} inputs are not a multiple of the group size {group_size}"
    return None


def packed_columns(n: int, bits: int) -> int:
    """Columns of a packed head of n: the next number that the packing takes. Other weights are packed as they are."""
    multiple = 4 * _COLUMNS[bits]
    return -(-n // multiple) * multiple


def pad_columns(array: np.ndarray, bits: int) -> np.ndarray:
    """An array [.., N] with zeros up to `packed_columns`."""
    more = packed_columns(array.shape[-1], bits) - array.shape[-1]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)]) if more else array


def quantize(weight: np.ndarray, bits: int, group_size: int, low_precision) -> tuple[np.ndarray, np.ndarray]:
    """Integers and scales of a float weight, as Paddle's `weight_quantize` computes them.

    Args:
        weight: float32 [K, N].
        bits: 8 or 4.
        group_size: rows that share a scale; -1: all.
        low_precision: function that rounds float32 to the dtype of the scales.
    Returns:
        int8 [K, N], at most 127 (7) in magnitude, halves away from zero; float32 scales [N], or [K/g, N].
    """
    k, n = weight.shape
    rows = k if group_size == -1 else group_size
    grouped = weight.reshape(k // rows, rows, n)
    scales = low_precision(np.abs(grouped).max(axis=1) / np.float32(_LARGEST[bits]))  # [K/g, N]
    ratio = grouped / np.where(scales == 0, np.float32(1), scales)[:, None]
    integers = (np.sign(ratio) * np.floor(np.abs(ratio) + np.float32(0.5))).astype(np.int8).reshape(k, n)
    return integers, scales[0] if group_size == -1 else scales


def pack(integers: np.ndarray, bits: int) -> np.ndarray:
    """Pack int8 [K, N] in Paddle's layout: int8 [N, K], or [N/2, K] for 4 bit."""
    k, n = integers.shape
    block, columns = len(_ROWS[bits]), _COLUMNS[bits]
    by_column = integers.reshape(k // block, block, n)[:, _ROWS[bits]].reshape(k, n).T
    turns = by_column.reshape(n // columns, columns, k // _TURN, _TURN).transpose(0, 2, 1, 3)
    stored = (
        (turns.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8).reshape(-1, len(_ORDER[bits]))[:, _ORDER[bits]]
    )
    if bits == 8:
        return stored.reshape(n, k).view(np.int8)
    return (stored[:, 0::2] | stored[:, 1::2] << 4).reshape(n // 2, k).view(np.int8)


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Unpack a weight in Paddle's layout: int8 [K, N]."""
    n, k = packed.shape[0] * (8 // bits), packed.shape[1]
    block, columns, order = len(_ROWS[bits]), _COLUMNS[bits], _ORDER[bits]
    raw = packed.view(np.uint8)
    if bits == 4:
        raw = raw.reshape(-1, 4)
        raw = np.stack([raw & 15, raw >> 4], axis=-1)
    stored = raw.reshape(-1, len(order))[:, np.argsort(order)]
    turns = (
        (stored.astype(np.int16) - (1 << (bits - 1))).astype(np.int8).reshape(n // columns, k // _TURN, columns, _TURN)
    )
    by_column = turns.transpose(0, 2, 1, 3).reshape(n, k)
    return by_column.T.reshape(k // block, block, n)[:, np.argsort(_ROWS[bits])].reshape(k, n)


def pack_nibbles(integers: np.ndarray) -> np.ndarray:
    """Pack nibbles: int8 [K, N] of 4 bits -> uint8 [K/2, N], two rows a byte, the even row in the low nibble."""
    raw = integers.view(np.uint8) & 15
    return raw[0::2] | raw[1::2] << 4


def awq_nibbles(packed: np.ndarray) -> np.ndarray:
    """Unpack AWQ's int32 [R, N/8] (carried as uint32): nibbles uint8 [R, N], 0 to 15, in channel order."""
    shifts = np.argsort(_AWQ_ORDER).astype(np.uint32) * 4
    nibbles = packed[:, :, None] >> shifts & 15  # [R, N/8, 8]
    return nibbles.astype(np.uint8).reshape(packed.shape[0], -1)


def awq_weight(qweight: np.ndarray, qzeros: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Dequantise AWQ's three tensors (the packed ones carried as uint32, scales float16): float32 [K, N]."""
    q, zero = awq_nibbles(qweight), awq_nibbles(qzeros)
    rows = q.shape[0] // zero.shape[0]
    difference = q.reshape(-1, rows, q.shape[1]).astype(np.float32) - zero[:, None]
    return (difference * scales.astype(np.float32)[:, None]).reshape(q.shape)


def awq_with_offsets(qweight: np.ndarray, qzeros: np.ndarray, scales: np.ndarray):
    """Convert AWQ's three tensors to integers of 4 bits, scales and offsets: w = q * scale + offset, exactly.

    Returns:
        int8 [K, N], -8 to 7; float32 [K/g, N] twice. The offset (8 - zero) * scale has few enough digits for float32.
    """
    q, zero, wide = awq_nibbles(qweight), awq_nibbles(qzeros), scales.astype(np.float32)
    return q.astype(np.int8) - np.int8(8), wide, (8 - zero.astype(np.float32)) * wide


def awq_as_paddle(qweight: np.ndarray, qzeros: np.ndarray) -> tuple[np.ndarray, None] | tuple[None, str]:
    """Repack AWQ's integers in Paddle's 4-bit layout, which has no zero points: exact, or refused with a reason.

    Returns:
        (int8 [N/2, K], None) or (None, reason). The scales stay as they are.
    """
    q, zero = awq_nibbles(qweight).astype(np.int8), awq_nibbles(qzeros).astype(np.int8)
    k, n = q.shape
    group_size = k // zero.shape[0]
    reason = packing_obstacle(k, n, 4, group_size)
    if reason:
        return None, reason
    difference = (q.reshape(-1, group_size, n) - zero[:, None]).reshape(k, n)
    if difference.min() < -8 or difference.max() > 7:
        return (
            None,
            f"q - zero runs from {difference.min()} to {difference.max()}, 4 bits without zero points from -8 to 7",
        )
    return pack(difference, 4), None
