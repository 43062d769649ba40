"""A request's pictures on their way through the vision tower, some tiles at a time.

In: tiles of pictures. Out: their visual tokens, once all are there. What was seen before is not run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import paddle

from paddle_internvl.models.feature_cache import FeatureCache


class Seeing:
    """The pictures of one request.

    Args:
        pictures: `picture_key` and float32 tiles [T, 3, S, S] of each; they are let go one by one. cache: of visual
            tokens.
    Attributes:
        keys: of all pictures. remaining: tiles that the tower has not run yet, as far as known.
    """

    def __init__(self, pictures: Sequence[tuple[bytes, np.ndarray]], cache: FeatureCache):
        self.keys = [key for key, _ in pictures]
        self._waiting = deque(pictures)
        self._cache = cache
        self._tokens: list[paddle.Tensor] = []
        self._parts: list[paddle.Tensor] = []  # of the first picture that waits
        self.remaining = sum(len(tiles) for _, tiles in pictures)

    @property
    def current(self) -> bytes:
        """Key of the picture whose tiles `wanted` returned last."""
        return self._waiting[0][0]

    def wanted(self, most: int) -> np.ndarray | None:
        """Up to `most` tiles to run next, [t, 3, S, S], all of one picture; None when all is seen."""
        while self._waiting:
            key, tiles = self._waiting[0]
            done = sum(part.shape[0] for part in self._parts)
            known = None if done else self._cache.find(key)
            if known is None:
                return tiles[done : done + most]
            self._tokens.append(known)
            self._waiting.popleft()
            self.remaining -= len(tiles)
        return None

    def give(self, features: paddle.Tensor) -> None:
        """The visual tokens [t, N, D] of the tiles that `wanted` returned last."""
        key, tiles = self._waiting[0]
        self._parts.append(features)
        self.remaining -= features.shape[0]
        if sum(part.shape[0] for part in self._parts) == len(tiles):
            whole = self._parts[0] if len(self._parts) == 1 else paddle.concat(self._parts)
            self._cache.keep(key, whole)
            self._tokens.append(whole)
            self._parts = []
            self._waiting.popleft()

    def tokens(self) -> paddle.Tensor | None:
        """Visual tokens of all pictures, [T, N, D]; None without pictures."""
        if not self._tokens:
            return None
        return self._tokens[0] if len(self._tokens) == 1 else paddle.concat(self._tokens)
