"""Paged KV cache: keys and values of all sequences of an engine, in blocks of memory that is allocated once.

`PagedKVCache` is the memory, `PagedRows` the `models.kv_cache.KVCache` of one forward pass, made of block tables.
`block_pool` decides which sequence gets which block.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import paddle

from paddle_internvl.kernels.structs import KVView
from paddle_internvl.ops import devices
from paddle_internvl.ops.transfers import upload

BLOCK_SIZE = 16  # positions


class PagedKVCache:
    """Keys and values of every decoder layer, [blocks * K * BLOCK_SIZE, E] each.

    A block is laid out as [K, BLOCK_SIZE, E], so gathering whole blocks gives a row's keys in the order of heads that
    the products of attention need.

    Args:
        decoder: a `DecoderForCausalLM`, for the shape, dtype and devices of its layers.
        blocks: number of blocks.
    Attributes:
        keys: one tensor a layer.
        values: one tensor a layer.
        kv_heads: K.
        head_dim: E.
    """

    def __init__(self, decoder, blocks: int):
        config, dtype = decoder.config, decoder.model.norm.weight.dtype
        self.kv_heads, self.head_dim = decoder.local_kv_heads, config.head_dim
        self._layer_devices = decoder.layer_devices or [None] * config.num_hidden_layers
        # Zeros: masked keys and values are multiplied by 0, and fresh memory may hold NaN.
        shape = [blocks * self.kv_heads * BLOCK_SIZE, self.head_dim]
        self.keys, self.values = [], []
        for device in self._layer_devices:
            with devices.on(device):
                self.keys.append(paddle.zeros(shape, dtype))
                self.values.append(paddle.zeros(shape, dtype))

    def clear(self, blocks: Sequence[int]) -> None:
        """Set blocks to zero."""
        size = self.kv_heads * BLOCK_SIZE
        for keys, values, device in zip(self.keys, self.values, self._layer_devices):
            with devices.on(device):
                for block in blocks:
                    keys[block * size : (block + 1) * size] = 0.0
                    values[block * size : (block + 1) * size] = 0.0

    def rows(
        self,
        block_tables: Sequence[Sequence[int]],
        lengths: Sequence[int],
        new: int,
        num_blocks: int | None = None,
    ) -> PagedRows:
        """The KV cache of one forward pass.

        Args:
            block_tables: blocks of each row, in order, the new positions included.
            lengths: positions stored of each row.
            new: L, positions that the pass adds to each row; above 1 only for a single row.
            num_blocks: blocks read of each row; None: as many as the longest row has.
        Raises:
            ValueError: several rows, and more than one new position.
        """
        return PagedRows(self, block_tables, lengths, new, num_blocks or -(-(max(lengths) + new) // BLOCK_SIZE))


class PagedRows:
    """Rows of a paged KV cache in one forward pass; implements `models.kv_cache.KVCache`.

    Attributes:
        length: positions stored before the pass, of the first row.
        lengths: int64 [B], positions of each row with the new one; None where a single row is extended by several.
    """

    def __init__(self, cache: PagedKVCache, block_tables, lengths, new: int, num_blocks: int):
        if new > 1 and len(block_tables) > 1:
            raise ValueError(f"{len(block_tables)} rows can't be extended by {new} positions at once")
        self._cache, self._new = cache, new
        self.length = lengths[0]
        self._shape = [len(block_tables), cache.kv_heads, num_blocks * BLOCK_SIZE, cache.head_dim]
        self._end = lengths[0] + new if new > 1 else None
        self._slots, self._gathered, self._table, self._totals = map(upload, self._indices(block_tables, lengths))
        self.lengths = self._totals if new == 1 else None
        self._copies: dict[str, PagedRows] = {}

    def _indices(self, block_tables, lengths) -> list[np.ndarray]:
        """Slots written, int64 [B * L * K]; blocks gathered, [B * K * blocks]; block table, [B, blocks]; positions of
        each row with the new ones, [B]."""
        kv_heads, num_blocks = self._cache.kv_heads, self._shape[2] // BLOCK_SIZE
        table = np.empty((len(block_tables), num_blocks), np.int64)
        for row, blocks in zip(table, block_tables):
            # Padding entries are masked, but 0 * NaN is NaN: they point at the row's own first block, never at another
            # request's.
            row[:] = blocks[0]
            row[: len(blocks)] = blocks[:num_blocks]
        heads, lengths = np.arange(kv_heads), np.asarray(lengths, np.int64)
        positions = lengths[:, None] + np.arange(self._new)  # [B, L]
        blocks = np.take_along_axis(table, positions // BLOCK_SIZE, axis=1)[..., None] * kv_heads + heads  # [B, L, K]
        slots = blocks * BLOCK_SIZE + positions[..., None] % BLOCK_SIZE
        gathered = table[:, None] * kv_heads + heads[:, None]
        return [slots.flatten(), gathered.flatten(), table, lengths + self._new]

    def refill(self, block_tables: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Write the tables of other rows, as many and with one new position each, into the same memory, which a
        captured CUDA graph reads."""
        buffers = (self._slots, self._gathered, self._table, self._totals)
        for buffer, array in zip(buffers, self._indices(block_tables, lengths)):
            buffer.copy_(upload(array), False)

    def on_device(self, device: str) -> PagedRows:
        """See `KVCache`."""
        if device not in self._copies:
            rows = copy(self)
            for name in ("_slots", "_gathered", "_table", "_totals", "lengths"):
                setattr(rows, name, devices.to_device(getattr(self, name), device))
            self._copies[device] = rows
        return self._copies[device]

    def view(self, length: int) -> KVView:
        """See `KVCache`. length: L, the `new` of these rows."""
        cache = self._cache
        return KVView(cache.keys, cache.values, self._totals, cache.kv_heads, self._table, BLOCK_SIZE)

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """See `KVCache`."""
        for memory, new in ((self._cache.keys[layer], k), (self._cache.values[layer], v)):
            memory.scatter_(self._slots, new.reshape([-1, self._cache.head_dim]))

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """See `KVCache`."""
        self.store(layer, k, v)
        return self._gather(self._cache.keys[layer]), self._gather(self._cache.values[layer])

    def _gather(self, memory: paddle.Tensor) -> paddle.Tensor:
        """Keys or values of all rows, [B, M, K, E]."""
        blocks = memory.reshape([-1, BLOCK_SIZE * self._cache.head_dim])
        gathered = blocks.index_select(self._gathered, axis=0).reshape(self._shape)
        return (gathered if self._end is None else gathered[:, :, : self._end]).transpose([0, 2, 1, 3])

    def advance(self, length: int) -> None:
        """See `KVCache`; without effect, since each sequence counts its own positions."""
