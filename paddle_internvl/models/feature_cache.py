"""Visual tokens of pictures seen before, so that a conversation's later rounds do not run the vision tower again.

In: a picture's tiles. Out: its visual tokens, computed or remembered. The key is a hash of the normalised tiles, so
that content, size and tile settings are all in it; the least recently used are dropped beyond a number of bytes.
Knows no text. Weights are not in the key: `InternVLNetwork` empties the cache when they may change.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import paddle

DEFAULT_BYTES = 256 * 2**20


class FeatureCache:
    """A bounded memory of visual tokens.

    Args:
        max_bytes: of the tokens kept; 0 keeps none.
    Attributes:
        hits, misses: pictures found, and computed, so far. nbytes: what is kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES):
        self.max_bytes = max_bytes
        self.hits = self.misses = self.nbytes = 0
        self._kept: OrderedDict[bytes, paddle.Tensor] = OrderedDict()

    def clear(self) -> None:
        """Forget every picture."""
        self._kept.clear()
        self.nbytes = 0

    def tokens(
        self, pictures: Sequence[np.ndarray], compute: Callable[[paddle.Tensor], paddle.Tensor]
    ) -> list[paddle.Tensor]:
        """Each picture's visual tokens, [T, N, D].

        Args:
            pictures: float32 tiles [T, 3, S, S] each; equal ones are computed once.
            compute: [T, 3, S, S] -> [T, N, D], asked once for the tiles of all pictures not known.
        """
        keys = [picture_key(tiles) for tiles in pictures]
        found = {key: tokens for key in dict.fromkeys(keys) if (tokens := self.find(key)) is not None}
        missing = {key: tiles for key, tiles in zip(keys, pictures) if key not in found}
        if missing:
            together = compute(paddle.to_tensor(np.concatenate(list(missing.values()))))
            sizes = [len(tiles) for tiles in missing.values()]
            for key, tokens in zip(missing, together.split(sizes, axis=0)):
                found[key] = tokens
                self.keep(key, tokens)
        return [found[key] for key in keys]

    def find(self, key: bytes) -> paddle.Tensor | None:
        """The visual tokens [T, N, D] of the picture with this `picture_key`, if they are remembered."""
        tokens = self._kept.get(key)
        if tokens is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return tokens

    def keep(self, key: bytes, tokens: paddle.Tensor) -> None:
        """Remember a picture's visual tokens, and drop the least recently used beyond the bytes."""
        size = tokens.numel().item() * tokens.element_size()
        if size > self.max_bytes or key in self._kept:
            return
        self._kept[key] = tokens
        self.nbytes += size
        while self.nbytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.numel().item() * oldest.element_size()


def picture_key(tiles: np.ndarray) -> bytes:
    """What tells a picture's tiles [T, 3, S, S] from all others: 32 bytes."""
    digest = hashlib.blake2b(np.ascontiguousarray(tiles).data, digest_size=32)
    digest.update(repr(tiles.shape).encode())
    return digest.digest()
