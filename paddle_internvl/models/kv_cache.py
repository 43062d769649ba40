"""The KV cache: keys and values of the positions a decoder has computed.

`KVCache` is the protocol that the decoder relies on. Two classes implement it: `ContiguousKVCache` (one run of memory a
row, for `generation`) and `engine.paged_kv_cache.PagedRows` (blocks shared by all requests of an engine).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import paddle

from paddle_internvl.kernels.structs import KVView
from paddle_internvl.ops import devices


class KVCache(Protocol):
    """KV cache of the B rows of one forward pass: every layer stores L new positions, then `advance` counts them.

    Attributes:
        length: positions stored before the pass, where all rows have equally many.
        lengths: int64 [B], positions of each row with the new one, where rows differ (then L is 1); None: all equal.
    """

    length: int
    lengths: paddle.Tensor | None

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """Write k and v [B, L, K, E] of a layer behind the stored positions."""

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """As `store`; returns keys and values of all positions of the layer, [B, M, K, E] each."""

    def view(self, length: int) -> KVView:
        """Memory of all layers for a native kernel that writes `length` new positions of each row itself."""

    def advance(self, length: int) -> None:
        """Count `length` positions as stored, once every layer has stored them."""

    def on_device(self, device: str) -> KVCache:
        """The same rows for a layer on `device`, where layers are placed on several."""


class ContiguousKVCache:
    """A `KVCache` with one run of memory for each row, allocated once; all rows have equally many positions.

    Args:
        layers: number of decoder layers.
        batch: B.
        capacity: largest M.
        kv_heads: K.
        head_dim: E.
        dtype: of k and v.
        layer_devices: device of each layer's keys and values; None: the current device.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        layer_devices: Sequence[str] | None = None,
    ):
        self.capacity = capacity
        self.length = 0
        self.lengths = None
        shape = [batch, capacity, kv_heads, head_dim]
        self._keys, self._values, self._layer_devices = [], [], layer_devices or [None] * layers
        for device in self._layer_devices:
            with devices.on(device):
                self._keys.append(paddle.empty(shape, dtype))
                self._values.append(paddle.empty(shape, dtype))

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """See `KVCache`; the result is a view.

        Raises:
            ValueError: more positions than the capacity.
        """
        self.store(layer, k, v)
        end = self.length + k.shape[1]
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def keys(self, layer: int, length: int) -> paddle.Tensor:
        """Keys of the first `length` positions of a layer, [B, M, K, E]; a view."""
        return self._keys[layer][:, :length]

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """See `KVCache` and `extend`."""
        end = self._end(k.shape[1])
        self._keys[layer][:, self.length : end] = k
        self._values[layer][:, self.length : end] = v

    def view(self, length: int) -> KVView:
        """See `KVCache` and `extend`."""
        batch, _, kv_heads, _ = self._keys[0].shape
        totals = paddle.full([batch], self._end(length), "int64")
        return KVView(self._keys, self._values, totals, kv_heads)

    def _end(self, length: int) -> int:
        end = self.length + length
        if end > self.capacity:
            raise ValueError(f"the KV cache holds {self.capacity} positions, and {end} are needed")
        return end

    def advance(self, length: int) -> None:
        """See `KVCache`."""
        self.length += length

    def on_device(self, device: str) -> ContiguousKVCache:
        """See `KVCache`: each layer's memory is on the layer's device already."""
        return self

    def keep_rows(self, rows: paddle.Tensor) -> None:
        """Keep only the batch rows `rows` (int64 [B']), in that order, as beam search needs."""
        for layer, device in enumerate(self._layer_devices):
            with devices.on(device):
                index = rows if device is None else devices.to_device(rows, device)
                self._keys[layer] = self._keys[layer].index_select(index, axis=0)
                self._values[layer] = self._values[layer].index_select(index, axis=0)
