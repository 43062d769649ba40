"""Block pool of the paged KV cache: allocation, reference counts and the prefix cache. Block numbers only, no tensors.

A sequence reserves the most blocks it may need and allocates them one by one, so an admitted sequence always finishes.
A full block that is registered under a key can be shared by sequences with the same prefix; a registered block without
references stays cached until its memory is needed, least recently used first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """`total` blocks of a paged KV cache.

    Attributes:
        total: number of blocks.
        reserved: blocks reserved and not allocated yet.
    """

    def __init__(self, total: int):
        self.total = total
        self.reserved = 0
        self._free = list(range(total - 1, -1, -1))  # a stack: the lowest number is allocated first
        self._references: Counter[int] = Counter()
        self._block_of_key: dict[bytes, int] = {}
        self._key_of_block: dict[int, bytes] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()  # registered, without references; oldest first

    @property
    def used(self) -> int:
        """Blocks with at least one reference."""
        return len(self._references)

    @property
    def available(self) -> int:
        """Blocks that are neither referenced nor reserved."""
        return self.total - self.used - self.reserved

    def reserve(self, count: int) -> bool:
        """Reserve `count` blocks; returns False if fewer are available."""
        if count > self.available:
            return False
        self.reserved += count
        return True

    def unreserve(self, count: int) -> None:
        """Cancel the reservation of `count` blocks.

        Raises:
            ValueError: fewer blocks are reserved.
        """
        if count > self.reserved:
            raise ValueError(f"{count} blocks unreserved, but only {self.reserved} are reserved")
        self.reserved -= count

    def allocate(self, count: int) -> list[int]:
        """Allocate `count` of the reserved blocks; cached blocks are evicted where no other is free."""
        self.unreserve(count)
        blocks = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._evictable.popitem(last=False)
                del self._block_of_key[self._key_of_block.pop(block)]
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def share(self, keys: Sequence[bytes]) -> list[int]:
        """Take a reference on the cached blocks of the longest prefix of `keys`; each replaces one reserved block."""
        blocks: list[int] = []
        for key in keys:
            block = self._block_of_key.get(key)
            if block is None:
                break
            blocks.append(block)
            self._evictable.pop(block, None)
            self._references[block] += 1
        self.unreserve(len(blocks))
        return blocks

    def register(self, block: int, key: bytes) -> None:
        """Make a referenced block shareable under `key`; without effect if the block or the key is registered."""
        if key not in self._block_of_key and block not in self._key_of_block:
            self._block_of_key[key] = block
            self._key_of_block[block] = key

    def release(self, blocks: Iterable[int]) -> None:
        """Drop one reference on each block."""
        for block in blocks:
            self._references[block] -= 1
            if self._references[block]:
                continue
            del self._references[block]
            if block in self._key_of_block:
                self._evictable[block] = None
            else:
                self._free.append(block)

    def clear(self) -> None:
        """Clear the prefix cache: no block is registered any more."""
        self._free += self._evictable
        self._evictable.clear()
        self._block_of_key.clear()
        self._key_of_block.clear()
