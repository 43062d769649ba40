"""Paged KV cache: keys and values of all requests of an engine, in blocks of `BLOCK` positions allocated once.

`PagedKVCache` holds the memory, `PagedRows` is the `KVCache` of one forward pass over some block tables. Which request
holds which block is decided by `block_pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import paddle

from paddle_internvl.kernels.layers import KVView
from paddle_internvl.ops import devices
from paddle_internvl.ops.transfers import upload

BLOCK = 16  # positions


def blocks_for(positions: int) -> int:
    """Number of blocks that hold `positions` positions."""
    return -(-positions // BLOCK)


class PagedKVCache:
    """Memory of `blocks` KV blocks in every layer.

    A block is [K, BLOCK, E], heads first, so that gathering whole blocks gives a row's keys in the order that the
    products of attention need.

    Args:
        config: the decoder's.
        blocks: number of blocks.
        dtype: of k and v.
        kv_heads: K of this rank; None: the config's.
        layer_devices: device of each layer's keys and values; None: the current device.
    """

    def __init__(
        self,
        config,
        blocks: int,
        dtype: str,
        kv_heads: int | None = None,
        layer_devices: Sequence[str] | None = None,
    ):
        self.kv_heads, self.head_dim = kv_heads or config.num_key_value_heads, config.head_dim
        # Zeros: a masked position is multiplied by 0, and 0 times the content of fresh memory need not be 0.
        shape = [blocks * self.kv_heads * BLOCK, self.head_dim]
        self.keys, self.values, self._layer_devices = [], [], layer_devices or [None] * config.num_hidden_layers
        for device in self._layer_devices:
            with devices.on(device):
                self.keys.append(paddle.zeros(shape, dtype))
                self.values.append(paddle.zeros(shape, dtype))

    def clear(self, blocks: Sequence[int]) -> None:
        """Set blocks to zero."""
        size = self.kv_heads * BLOCK
        for keys, values, device in zip(self.keys, self.values, self._layer_devices):
            with devices.on(device):
                for block in blocks:
                    keys[block * size : (block + 1) * size] = 0.0
                    values[block * size : (block + 1) * size] = 0.0

    def rows(
        self, block_tables: Sequence[Sequence[int]], lengths: Sequence[int], new: int, blocks: int | None = None
    ) -> PagedRows:
        """The `KVCache` of one forward pass.

        Args:
            block_tables: blocks of each row in order, with room for the new positions.
            lengths: positions stored in each row.
            new: L, positions that the pass adds to each row; above 1 only for a single row.
            blocks: blocks read of each row; None: as many as the longest row has.
        Raises:
            ValueError: several rows and several new positions.
        """
        return PagedRows(self, block_tables, lengths, new, blocks or blocks_for(max(lengths) + new))


class PagedRows:
    """A `KVCache` over block tables: the rows of one forward pass. Made by `PagedKVCache.rows`.

    Attributes:
        length: see `KVCache`; of the single row where L is above 1.
        lengths: see `KVCache`; None where L is above 1.
    """

    def __init__(self, cache: PagedKVCache, block_tables, lengths, new: int, blocks: int):
        if new > 1 and len(block_tables) > 1:
            raise ValueError(f"{len(block_tables)} rows can't be extended by {new} positions at once")
        self._cache, self._new = cache, new
        self.length = lengths[0]
        self._shape = [len(block_tables), cache.kv_heads, blocks * BLOCK, cache.head_dim]
        self._end = lengths[0] + new if new > 1 else None
        self._slots, self._heads, self._table, self._totals = map(upload, self._indices(block_tables, lengths))
        self.lengths = self._totals if new == 1 else None
        self._copies: dict[str, PagedRows] = {}  # by device

    def _indices(self, block_tables, lengths) -> list[np.ndarray]:
        """Slots of the memory that are written, [B * L * K]; (block, head) pairs that are read, [B * K * blocks]; the
        block table [B, blocks]; positions of each row with the new ones [B]."""
        kv, blocks = self._cache.kv_heads, self._shape[2] // BLOCK
        table = np.empty((len(block_tables), blocks), np.int64)
        for row, held in zip(table, block_tables):
            # Padding entries are masked, but 0 * NaN is NaN: point them at the row's own first block, never at a
            # block of another request.
            row[:] = held[0]
            row[: len(held)] = held[:blocks]
        heads, lengths = np.arange(kv), np.asarray(lengths, np.int64)
        positions = lengths[:, None] + np.arange(self._new)  # [B, L]
        written = np.take_along_axis(table, positions // BLOCK, axis=1)[..., None] * kv + heads  # [B, L, K]
        slots = written * BLOCK + positions[..., None] % BLOCK
        return [slots.flatten(), (table[:, None] * kv + heads[:, None]).flatten(), table, lengths + self._new]

    def refill(self, block_tables: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Point the rows at other block tables, as many, with one new position each. The index tensors are written in
        place, since a captured CUDA graph reads their memory."""
        tensors = self._slots, self._heads, self._table, self._totals
        for tensor, array in zip(tensors, self._indices(block_tables, lengths)):
            tensor.copy_(upload(array), False)

    def on_device(self, device: str) -> PagedRows:
        """See `KVCache`; index tensors are copied once a device."""
        if device not in self._copies:
            rows = copy(self)
            for name in ("_slots", "_heads", "_table", "_totals", "lengths"):
                setattr(rows, name, devices.to_device(getattr(self, name), device))
            self._copies[device] = rows
        return self._copies[device]

    def view(self, length: int) -> KVView:
        """See `KVCache`. length: L, equal to `new` of `PagedKVCache.rows`."""
        cache = self._cache
        return KVView(cache.keys, cache.values, self._totals, cache.kv_heads, self._table, BLOCK)

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """See `KVCache`."""
        for memory, new in ((self._cache.keys[layer], k), (self._cache.values[layer], v)):
            memory.scatter_(self._slots, new.reshape([-1, self._cache.head_dim]))

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """See `KVCache`."""
        self.store(layer, k, v)
        return self._gather(self._cache.keys[layer]), self._gather(self._cache.values[layer])

    def _gather(self, memory: paddle.Tensor) -> paddle.Tensor:
        blocks = memory.reshape([-1, BLOCK * self._cache.head_dim])
        rows = blocks.index_select(self._heads, axis=0).reshape(self._shape)  # [B, K, M, E]
        return (rows if self._end is None else rows[:, :, : self._end]).transpose([0, 2, 1, 3])

    def advance(self, length: int) -> None:
        """See `KVCache`; lengths are counted by the requests."""
