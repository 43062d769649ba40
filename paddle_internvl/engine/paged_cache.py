"""Keys and values of all sequences of an engine, in blocks of memory that is allocated once.

In: which blocks belong to which row of a forward pass. Out: what the decoder needs of a cache: room for new k and v,
and all of them so far. Which block is whose is `blocks`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle

BLOCK = 16  # positions


class PagedCache:
    """Room for `blocks` blocks of every layer.

    Args:
        config: the decoder's. blocks: number of them. dtype: of k and v.
    """

    def __init__(self, config, blocks: int, dtype: str):
        # Zeros, since what is masked is multiplied by 0, and 0 times whatever lies in fresh memory need not be 0.
        shape = [blocks * BLOCK, config.num_key_value_heads, config.head_dim]
        self.keys = [paddle.zeros(shape, dtype) for _ in range(config.num_hidden_layers)]
        self.values = [paddle.zeros(shape, dtype) for _ in range(config.num_hidden_layers)]

    def clear(self, blocks: Sequence[int]) -> None:
        """Make blocks zero again."""
        for block in blocks:
            for memory in (*self.keys, *self.values):
                memory[block * BLOCK : (block + 1) * BLOCK] = 0.0

    def rows(self, tables: Sequence[Sequence[int]], lengths: Sequence[int], new: int) -> Rows:
        """The cache of one forward pass.

        Args:
            tables: blocks of each row, in order, with room for what is new. lengths: positions that each row has.
            new: L, positions that the pass adds to each; above 1 only for a single row.
        """
        return Rows(self, tables, lengths, new)


class Rows:
    """Some sequences as the rows of one forward pass.

    Attributes:
        length: positions before the pass, where there is one row. lengths: int64 [B], positions of each row with the
            new one; None where one row is all there is.
    """

    def __init__(self, cache: PagedCache, tables, lengths, new: int):
        if new > 1 and len(tables) > 1:
            raise ValueError(f"{len(tables)} rows can't be extended by {new} positions at once")
        self._cache = cache
        self.length, longest = lengths[0], max(lengths) + new
        needed = -(-longest // BLOCK)
        table = np.zeros((len(tables), needed), np.int64)  # what stands behind a row's end is masked
        for row, blocks in zip(table, tables):
            row[: len(blocks)] = blocks[:needed]
        at = np.asarray(lengths)[:, None] + np.arange(new)  # [B, L]
        cells = np.take_along_axis(table, at // BLOCK, axis=1) * BLOCK + at % BLOCK
        self._cells = paddle.to_tensor(cells.flatten())
        self._longest, self._rows = longest, len(tables)
        self.lengths = paddle.to_tensor(np.asarray(lengths, np.int64) + new) if len(tables) > 1 else None
        consecutive = len(tables) == 1 and (np.diff(table[0]) == 1).all()
        self._first = int(table[0, 0]) * BLOCK if consecutive else None
        self._blocks = None if consecutive else paddle.to_tensor(table.flatten())

    def extend(self, layer: int, k: paddle.Tensor, v: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Store k and v [B, L, K, E] behind what is there; returns all of them, [B, M, K, E] each."""
        return self._extend(self._cache.keys[layer], k), self._extend(self._cache.values[layer], v)

    def _extend(self, memory: paddle.Tensor, new: paddle.Tensor) -> paddle.Tensor:
        _, kv, e = memory.shape
        memory.scatter_(self._cells, new.reshape([-1, kv, e]))
        if self._first is not None:
            return memory[self._first : self._first + self._longest].unsqueeze(0)
        seen = memory.reshape([-1, BLOCK, kv, e]).index_select(self._blocks, axis=0)
        return seen.reshape([self._rows, -1, kv, e])[:, : self._longest]

    def advance(self, length: int) -> None:
        """Lengths are kept by the sequences."""
