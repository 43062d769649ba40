"""Vision between decode steps: tiles of several requests run through the vision tower together, a few layers a step.

In: `PendingPictures` of admitted sequences. Out: their visual tokens. A run of the tower pauses after any layer when
its time is up or a new request arrives, and continues at the next step. Pictures in the feature cache are not run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import paddle

from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.preprocess.pixels import normalized

_SECONDS = 0.01  # in the vision tower between two decode steps; at least one layer runs


class PendingPictures:
    """The pictures of one request, from tiles to visual tokens.

    Args:
        pictures: `picture_key` and tiles [T, 3, S, S] of each, uint8 or normalised; they are freed one by one.
        cache: the feature cache.
    Attributes:
        keys: `picture_key` of each picture.
        remaining: tiles without visual tokens.
        run_alone: whether the tower failed on a batch with tiles of this request; they run alone from then on.
        closed: whether the visual tokens are no longer needed.
    """

    def __init__(self, pictures: Sequence[tuple[bytes, np.ndarray]], cache: FeatureCache):
        self.keys = [key for key, _ in pictures]
        self.remaining = sum(len(tiles) for _, tiles in pictures)
        self.run_alone = self.closed = False
        self._pending = deque(pictures)
        self._cache = cache
        self._features: list[paddle.Tensor] = []  # of complete pictures
        self._parts: list[paddle.Tensor] = []  # of the first pending picture

    @property
    def complete(self) -> bool:
        """Whether every picture has its visual tokens."""
        return not self._pending

    @property
    def current_key(self) -> bytes:
        """Key of the first pending picture."""
        return self._pending[0][0]

    def lookup(self) -> bool:
        """Take visual tokens from the feature cache, up to the first picture that it lacks; returns `complete`."""
        while self._pending and not self._parts:
            key, tiles = self._pending[0]
            cached = self._cache.get(key)
            if cached is None:
                break
            self.remaining -= len(tiles)
            self._finish_picture(cached)
        return self.complete

    def next_tiles(self, limit: int) -> np.ndarray:
        """Up to `limit` tiles of the first pending picture, float32 [t, 3, S, S]."""
        done = sum(part.shape[0] for part in self._parts)
        return normalized(self._pending[0][1][done : done + limit])

    def add_features(self, features: paddle.Tensor) -> None:
        """Add the visual tokens [t, N, D] of the tiles that `next_tiles` returned last."""
        key, tiles = self._pending[0]
        self._parts.append(features)
        self.remaining -= features.shape[0]
        if sum(part.shape[0] for part in self._parts) == len(tiles):
            whole, self._parts = _concat(self._parts), []
            self._cache.put(key, whole)
            self._finish_picture(whole)
            self.lookup()

    def _finish_picture(self, features: paddle.Tensor) -> None:
        self._features.append(features)
        self._pending.popleft()

    def visual_tokens(self) -> paddle.Tensor | None:
        """Visual tokens of all pictures, [T, N, D]; None without pictures."""
        return _concat(self._features) if self._features else None

    def close(self) -> None:
        """Free tiles and visual tokens."""
        self.closed, self.remaining = True, 0
        self._pending.clear()
        self._features, self._parts = [], []


@dataclass
class _Run:
    """A batch of tiles in the vision tower.

    Attributes:
        requests: whose tiles they are.
        sizes: tiles of each request.
        layers: iterator over the tower's layers; its last item is the visual tokens.
    """

    requests: list[PendingPictures]
    sizes: list[int]
    layers: Iterator[paddle.Tensor | None]


class VisionScheduler:
    """Batches tiles of several requests and runs them through the vision tower a few layers at a time.

    Args:
        feature_steps: [T, 3, S, S] -> iterator of None after each layer of the tower and, last, of [T, N, D].
        max_tiles: largest batch.
    Attributes:
        computed_tiles: tiles run so far.
    """

    def __init__(self, feature_steps: Callable[[np.ndarray], Iterator[paddle.Tensor | None]], max_tiles: int):
        self._feature_steps, self._max_tiles = feature_steps, max_tiles
        self._run: _Run | None = None
        self.computed_tiles = 0

    def step(
        self, pending: Sequence[PendingPictures], should_yield: Callable[[], bool]
    ) -> list[tuple[PendingPictures, Exception]]:
        """Run the tower for a moment.

        Args:
            pending: pictures without visual tokens, the most urgent request first.
            should_yield: polled after every layer; True ends the step.
        Returns:
            Requests that failed, with the exception of each.
        """
        deadline = time.monotonic() + _SECONDS
        while True:
            if self._run is None or all(request.closed for request in self._run.requests):
                self._run = self._next_run(pending)
            run = self._run
            if run is None:
                return []
            try:
                features = next(run.layers)
                if features is not None:
                    self._run = None
                    self._finish_run(run, features)
            except Exception as error:
                self._run = None
                if len(run.requests) == 1:
                    return [(run.requests[0], error)]
                for request in run.requests:
                    request.run_alone = True
                return []
            if should_yield() or time.monotonic() > deadline:
                return []

    def _next_run(self, pending: Sequence[PendingPictures]) -> _Run | None:
        """A batch of the most urgent tiles; a picture of several requests is in it once."""
        tiles: list[np.ndarray] = []
        requests: dict[bytes, PendingPictures] = {}
        for request in pending:
            room = self._max_tiles - sum(map(len, tiles))
            if request.closed or not room or (tiles and request.run_alone):
                continue
            if request.lookup() or request.current_key in requests:
                continue
            tiles.append(request.next_tiles(room))
            requests[request.current_key] = request
            if request.run_alone:
                break
        if not tiles:
            return None
        return _Run(list(requests.values()), [len(part) for part in tiles], self._layers(tiles))

    def _layers(self, tiles: list[np.ndarray]) -> Iterator[paddle.Tensor | None]:
        yield from self._feature_steps(np.concatenate(tiles))

    def _finish_run(self, run: _Run, features: paddle.Tensor) -> None:
        self.computed_tiles += features.shape[0]
        for request, part in zip(run.requests, features.split(run.sizes, axis=0)):
            if not request.closed:
                request.add_features(part)


def _concat(parts: list[paddle.Tensor]) -> paddle.Tensor:
    return parts[0] if len(parts) == 1 else paddle.concat(parts)
