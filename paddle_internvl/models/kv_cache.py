"""Keys and values of the positions a decoder has seen, in memory that is allocated once.

In: the new k and v of a layer. Out: all k and v of that layer so far, as views. It knows no layer and no mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle

from paddle_internvl.kernels.layers import KVView
from paddle_internvl.ops import devices


class KVCache:
    """Room for `capacity` positions of every layer.

    Args:
        layers: number of decoder layers. batch: B. capacity: largest M. kv_heads: K. head_dim: E. dtype: of k and v.
        places: where each layer's are; None: on the current device.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        places: Sequence[str] | None = None,
    ):
        self.capacity = capacity
        self.length = 0  # positions filled in every layer
        self.lengths = None  # of each row by itself: here they are all equal
        shape = [batch, capacity, kv_heads, head_dim]
        self._keys, self._values, self._places = [], [], places or [None] * layers
        for device in self._places:
            with devices.on(device):
                self._keys.append(paddle.empty(shape, dtype))
                self._values.append(paddle.empty(shape, dtype))

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Store k and v [B, L, K, E] behind what is there; returns all of them, [B, M, K, E] each.

        Raises:
            ValueError: more positions than the capacity.
        """
        self.store(layer, k, v)
        end = self.length + k.shape[1]
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """As `extend`, with nothing returned."""
        end = self._end(k.shape[1])
        self._keys[layer][:, self.length : end] = k
        self._values[layer][:, self.length : end] = v

    def view(self, length: int) -> KVView:
        """Where keys and values lie when `length` positions are added to each row; those are for the caller to write.

        Raises:
            ValueError: more positions than the capacity.
        """
        batch, _, kv_heads, _ = self._keys[0].shape
        totals = paddle.full([batch], self._end(length), "int64")
        return KVView(self._keys, self._values, totals, kv_heads)

    def _end(self, length: int) -> int:
        end = self.length + length
        if end > self.capacity:
            raise ValueError(f"the KV cache holds {self.capacity} positions, and {end} are needed")
        return end

    def advance(self, length: int) -> None:
        """Count `length` positions as filled, once every layer has stored them."""
        self.length += length

    def keep_rows(self, rows: paddle.Tensor) -> None:
        """Keep only the batch rows `rows` (int64 [B']), in that order."""
        for layer, device in enumerate(self._places):
            with devices.on(device):
                here = rows if device is None else devices.moved(rows, device)
                self._keys[layer] = self._keys[layer].index_select(here, axis=0)
                self._values[layer] = self._values[layer].index_select(here, axis=0)
