"""Keys and values of the positions a decoder has seen, in memory that is allocated once.

In: the new k and v of a layer. Out: all k and v of that layer so far, as views. It knows no layer and no mask.
"""

from __future__ import annotations

import paddle


class KVCache:
    """Room for `capacity` positions of every layer.

    Args:
        layers: number of decoder layers. batch: B. capacity: largest M. kv_heads: K. head_dim: E. dtype: of k and v.
    """

    def __init__(self, layers: int, batch: int, capacity: int, kv_heads: int, head_dim: int, dtype: str):
        self.capacity = capacity
        self.length = 0  # positions filled in every layer
        self.lengths = None  # of each row by itself: here they are all equal
        shape = [batch, capacity, kv_heads, head_dim]
        self._keys = [paddle.empty(shape, dtype) for _ in range(layers)]
        self._values = [paddle.empty(shape, dtype) for _ in range(layers)]

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Store k and v [B, L, K, E] behind what is there; returns all of them, [B, M, K, E] each.

        Raises:
            ValueError: more positions than the capacity.
        """
        end = self.length + k.shape[1]
        if end > self.capacity:
            raise ValueError(f"the KV cache holds {self.capacity} positions, and {end} are needed")
        self._keys[layer][:, self.length : end] = k
        self._values[layer][:, self.length : end] = v
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def advance(self, length: int) -> None:
        """Count `length` positions as filled, once every layer has stored them."""
        self.length += length

    def keep_rows(self, rows: paddle.Tensor) -> None:
        """Keep only the batch rows `rows` (int64 [B']), in that order."""
        self._keys = [k.index_select(rows, axis=0) for k in self._keys]
        self._values = [v.index_select(rows, axis=0) for v in self._values]
