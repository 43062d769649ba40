"""LRU cache of visual tokens, so that later rounds of a conversation do not run the vision tower again.

The key is a hash of a picture's tiles, so it covers content, size and tile settings. The weights are not
part of the key: only a model prepared for inference, whose weights are fixed, has a cache.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from paddle_internvl.preprocess.pixels import as_tensor, normalized

if TYPE_CHECKING:  # the server's errors, which the review page shares, do without Paddle
    import paddle

DEFAULT_BYTES = 256 * 2**20


class FeatureCache:
    """LRU cache of visual tokens, bounded in bytes; several threads may use it. A copy is empty.

    Args:
        max_bytes: limit of all entries together; 0 stores nothing.
    Attributes:
        hits: lookups that found an entry.
        misses: lookups that found none.
        nbytes: bytes of all entries.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES):
        self.max_bytes = max_bytes
        self.hits = self.misses = self.nbytes = 0
        self._entries: OrderedDict[bytes, paddle.Tensor] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def __reduce__(self):
        return FeatureCache, (self.max_bytes,)

    def clear(self) -> None:
        """Remove every entry."""
        with self._lock:
            self._entries.clear()
            self.nbytes = 0

    def get_or_compute(
        self, pictures: Sequence[np.ndarray], compute: Callable[[paddle.Tensor], paddle.Tensor]
    ) -> list[paddle.Tensor]:
        """Visual tokens [T, N, D] of each picture.

        Args:
            pictures: tiles [T, 3, S, S] of each, uint8 or normalised; equal pictures are computed once.
            compute: [T, 3, S, S] -> [T, N, D]; called once with the tiles of all missing pictures.
        """
        keys = [picture_key(tiles) for tiles in pictures]
        found = {key: tokens for key in dict.fromkeys(keys) if (tokens := self.get(key)) is not None}
        missing = {key: tiles for key, tiles in zip(keys, pictures) if key not in found}
        if missing:
            computed = compute(as_tensor(np.concatenate(list(map(normalized, missing.values())))))
            sizes = [len(tiles) for tiles in missing.values()]
            for key, tokens in zip(missing, computed.split(sizes, axis=0)):
                found[key] = tokens
                self.put(key, tokens)
        return [found[key] for key in keys]

    def get(self, key: bytes) -> paddle.Tensor | None:
        """Visual tokens [T, N, D] of the picture with this `picture_key`; None: not cached."""
        with self._lock:
            tokens = self._entries.get(key)
            if tokens is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return tokens

    def put(self, key: bytes, tokens: paddle.Tensor) -> None:
        """Store a picture's visual tokens and evict the least recently used entries beyond `max_bytes`."""
        size = _nbytes(tokens)
        with self._lock:
            if size > self.max_bytes or key in self._entries:
                return
            self._entries[key] = tokens
            self.nbytes += size
            while self.nbytes > self.max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.nbytes -= _nbytes(oldest)


def _nbytes(tensor: paddle.Tensor) -> int:
    return tensor.numel().item() * tensor.element_size()


def picture_key(tiles: np.ndarray) -> bytes:
    """Cache key of a picture: 32 bytes, a hash of its tiles [T, 3, S, S] and their shape."""
    digest = hashlib.blake2b(np.ascontiguousarray(tiles).data, digest_size=32)
    digest.update(repr(tiles.shape).encode())
    return digest.digest()
