"""Keys and values of all sequences of an engine, in blocks of memory that is allocated once.

In: which blocks belong to which row of a forward pass. Out: what the decoder needs of a cache: room for new k and v,
and all of them so far. Which block is whose is `blocks`' business.
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


class PagedCache:
    """Room for `blocks` blocks of every layer. A block holds [K, BLOCK, E]: so one copy of whole blocks brings a row's
    keys into the order of heads that the products of attention want.

    Args:
        config: the decoder's. blocks: number of them. dtype: of k and v. kv_heads: K, where the decoder holds fewer
            than its config says; None: as that says. places: where each layer's are; None: on the current device.
    """

    def __init__(
        self,
        config,
        blocks: int,
        dtype: str,
        kv_heads: int | None = None,
        places: Sequence[str] | None = None,
    ):
        self.kv_heads, self.head_dim = kv_heads or config.num_key_value_heads, config.head_dim
        # Zeros, since what is masked is multiplied by 0, and 0 times whatever lies in fresh memory need not be 0.
        shape = [blocks * self.kv_heads * BLOCK, self.head_dim]
        self.keys, self.values, self._places = [], [], places or [None] * config.num_hidden_layers
        for device in self._places:
            with devices.on(device):
                self.keys.append(paddle.zeros(shape, dtype))
                self.values.append(paddle.zeros(shape, dtype))

    def clear(self, blocks: Sequence[int]) -> None:
        """Make blocks zero again."""
        size = self.kv_heads * BLOCK
        for keys, values, device in zip(self.keys, self.values, self._places):
            with devices.on(device):
                for block in blocks:
                    keys[block * size : (block + 1) * size] = 0.0
                    values[block * size : (block + 1) * size] = 0.0

    def rows(
        self, tables: Sequence[Sequence[int]], lengths: Sequence[int], new: int, blocks: int | None = None
    ) -> Rows:
        """The cache of one forward pass.

        Args:
            tables: blocks of each row, in order, with room for what is new. lengths: positions that each row has.
            new: L, positions that the pass adds to each; above 1 only for a single row. blocks: that are read of each
                row; None: as many as the longest has.
        """
        return Rows(self, tables, lengths, new, blocks or -(-(max(lengths) + new) // BLOCK))


class Rows:
    """Some sequences as the rows of one forward pass.

    Attributes:
        length: positions before the pass, where there is one row. lengths: int64 [B], positions of each row with the
            new one; None where a single row is extended by several.
    """

    def __init__(self, cache: PagedCache, tables, lengths, new: int, blocks: int):
        if new > 1 and len(tables) > 1:
            raise ValueError(f"{len(tables)} rows can't be extended by {new} positions at once")
        self._cache, self._new = cache, new
        self.length = lengths[0]
        self._shape = [len(tables), cache.kv_heads, blocks * BLOCK, cache.head_dim]
        self._end = lengths[0] + new if new > 1 else None
        self._cells, self._blocks, self._table, self._ends = map(upload, self._places(tables, lengths))
        self.lengths = self._ends if new == 1 else None
        self._elsewhere: dict[str, Rows] = {}

    def _places(self, tables, lengths) -> list[np.ndarray]:
        """Cells of the cache that are written [B * L * K], blocks that are read [B * K * blocks];
        the table [B, blocks]; and positions with the new ones."""
        kv, blocks = self._cache.kv_heads, self._shape[2] // BLOCK
        table = np.empty((len(tables), blocks), np.int64)
        for row, own in zip(table, tables):
            row[:] = own[0]  # behind a row's end all is masked; but another's numbers that are not finite would be seen
            row[: len(own)] = own[:blocks]
        heads, lengths = np.arange(kv), np.asarray(lengths, np.int64)
        at = lengths[:, None] + np.arange(self._new)  # [B, L]
        written = np.take_along_axis(table, at // BLOCK, axis=1)[..., None] * kv + heads  # [B, L, K]
        cells = written * BLOCK + at[..., None] % BLOCK
        return [cells.flatten(), (table[:, None] * kv + heads[:, None]).flatten(), table, lengths + self._new]

    def refill(self, tables: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Make these the rows of other sequences, as many, with one new position each: in the same memory, which a
        captured pass reads."""
        for memory, array in zip((self._cells, self._blocks, self._table, self._ends), self._places(tables, lengths)):
            memory.copy_(upload(array), False)

    def at(self, device: str) -> Rows:
        """The same rows for layers on another device."""
        if device not in self._elsewhere:
            there = copy(self)
            for name in ("_cells", "_blocks", "_table", "_ends", "lengths"):
                setattr(there, name, devices.moved(getattr(self, name), device))
            self._elsewhere[device] = there
        return self._elsewhere[device]

    def view(self, length: int) -> KVView:
        """Where keys and values lie with the new ones, which are for the caller to write. length: L, as `new` said."""
        cache = self._cache
        return KVView(cache.keys, cache.values, self._ends, cache.kv_heads, self._table, BLOCK)

    def store(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> None:
        """Store k and v [B, L, K, E] behind what is there."""
        for memory, new in ((self._cache.keys[layer], k), (self._cache.values[layer], v)):
            memory.scatter_(self._cells, new.reshape([-1, self._cache.head_dim]))

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Store k and v [B, L, K, E] behind what is there; returns all of them, [B, M, K, E] each."""
        self.store(layer, k, v)
        return self._seen(self._cache.keys[layer]), self._seen(self._cache.values[layer])

    def _seen(self, memory: paddle.Tensor) -> paddle.Tensor:
        e = self._cache.head_dim
        seen = memory.reshape([-1, BLOCK * e]).index_select(self._blocks, axis=0).reshape(self._shape)
        return (seen if self._end is None else seen[:, :, : self._end]).transpose([0, 2, 1, 3])

    def advance(self, length: int) -> None:
        """Lengths are kept by the sequences."""
