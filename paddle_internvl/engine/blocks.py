"""Who holds which block of the KV cache: numbers only, no tensor.

In: how many blocks a sequence may come to need, and keys of what blocks hold. Out: block numbers. A block whose content
is known by its key may be shared; one that nobody holds any more keeps its content until its room is needed, the least
recently held first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """`total` blocks of the KV cache.

    A sequence reserves what it may need, and takes blocks one by one as far as it has reserved, so that what has begun
    can always end.

    Attributes:
        reserved: blocks promised and not taken yet.
    """

    def __init__(self, total: int):
        self.total = total
        self.reserved = 0
        self._free = list(range(total - 1, -1, -1))  # the lowest number is taken first
        self._holders: dict[int, int] = {}
        self._known: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._resting: OrderedDict[int, None] = OrderedDict()  # known and held by nobody, least recent first

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return len(self._holders)

    @property
    def available(self) -> int:
        """Blocks that are neither held nor promised."""
        return self.total - self.used - self.reserved

    def reserve(self, count: int) -> bool:
        """Promise `count` blocks, if there are so many."""
        if count > self.available:
            return False
        self.reserved += count
        return True

    def give_back(self, count: int) -> None:
        """Reserved blocks that are not needed after all."""
        if count > self.reserved:
            raise ValueError(f"{count} blocks given back, but only {self.reserved} are reserved")
        self.reserved -= count

    def take(self, count: int) -> list[int]:
        """`count` of the reserved blocks, of no known content."""
        self.give_back(count)
        taken = []
        for _ in range(count):
            if not self._free:
                block, _ = self._resting.popitem(last=False)
                del self._known[self._keys.pop(block)]
                self._free.append(block)
            block = self._free.pop()
            self._holders[block] = 1
            taken.append(block)
        return taken

    def share(self, keys: Sequence[bytes]) -> list[int]:
        """Hold the blocks with the first of these keys that are known, up to the first that is not, in the place of as
        many reserved ones."""
        shared: list[int] = []
        for key in keys:
            block = self._known.get(key)
            if block is None:
                break
            shared.append(block)
            self._resting.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
        self.give_back(len(shared))
        return shared

    def know(self, block: int, key: bytes) -> None:
        """Say what a held block's content is; nothing happens if another block has that content."""
        if key not in self._known and block not in self._keys:
            self._known[key] = block
            self._keys[block] = key

    def release(self, blocks: Iterable[int]) -> None:
        """No longer hold blocks."""
        for block in blocks:
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            del self._holders[block]
            if block in self._keys:
                self._resting[block] = None
            else:
                self._free.append(block)

    def forget(self) -> None:
        """Forget the content of all blocks."""
        self._free += self._resting
        self._resting.clear()
        self._known.clear()
        self._keys.clear()
