"""The vision tower between decode steps: some tiles of some requests at a time, layer by layer.

In: sequences whose pictures are to be seen. Out: their visual tokens, in their `seeing`. A run stops after any layer
when its time is over or somebody new waits, and goes on at the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import paddle

from paddle_internvl.engine.sequence import Sequence, Stage

_SECONDS = 0.01  # in the tower between two decode steps; at least one layer


@dataclass
class _Run:
    """Tiles in the tower: whose they are, how many of each, and what computes them."""

    seers: list[Sequence]
    sizes: list[int]
    layers: Iterator[paddle.Tensor | None]


class Tower:
    """See the module.

    Args:
        model: an `InternVLChatModel`. tiles: the most in one run.
    Attributes:
        seen: tiles so far.
    """

    def __init__(self, model, tiles: int):
        self._model, self._tiles = model, tiles
        self._run: _Run | None = None
        self._by_themselves: set[Sequence] = set()  # they were in a run that failed, and one of them made it fail
        self.seen = 0

    def go_on(self, ready: list[Sequence], hurry: Callable[[], bool]) -> list[tuple[Sequence, Exception]]:
        """Work a little; what has all its tokens is then READING.

        Args:
            ready: sequences that are SEEING, the most urgent first. hurry: whether to stop soon.
        Returns:
            Sequences that failed, and why.
        """
        until = time.monotonic() + _SECONDS
        while True:
            if self._run is None or all(s.stage is Stage.ENDED for s in self._run.seers):
                self._run = self._begin(ready)
            if self._run is None:
                return []
            try:
                features = next(self._run.layers)
                if features is not None:
                    self._finish(self._run, features)
            except Exception as error:
                failed, self._run = self._run.seers, None
                if len(failed) == 1:
                    return [(failed[0], error)]
                self._by_themselves.update(failed)
                return []
            if hurry() or time.monotonic() > until:
                return []

    def _begin(self, ready: list[Sequence]) -> _Run | None:
        """Tiles of the most urgent, as many as run at once; those of equal pictures once."""
        tiles: list[np.ndarray] = []
        seers: dict[bytes, Sequence] = {}
        self._by_themselves = {s for s in self._by_themselves if s.stage is Stage.VISION}
        for sequence in ready:
            room = self._tiles - sum(map(len, tiles))
            if sequence.stage is not Stage.VISION or not room or (tiles and sequence in self._by_themselves):
                continue
            wanted = sequence.seeing.wanted(room)
            if wanted is None:  # another request has seen the picture meanwhile
                sequence.stage = Stage.PREFILL
            elif sequence.seeing.current not in seers:
                tiles.append(wanted)
                seers[sequence.seeing.current] = sequence
                if sequence in self._by_themselves:
                    break
        if not tiles:
            return None
        return _Run(list(seers.values()), [len(own) for own in tiles], self._layers(np.concatenate(tiles)))

    def _layers(self, tiles: np.ndarray) -> Iterator[paddle.Tensor | None]:
        yield from self._model.feature_steps(paddle.to_tensor(tiles))

    def _finish(self, run: _Run, features: paddle.Tensor) -> None:
        self._run = None
        self.seen += features.shape[0]
        for sequence, own in zip(run.seers, features.split(run.sizes, axis=0)):
            if sequence.stage is Stage.VISION:
                sequence.seeing.give(own)
                if sequence.seeing.wanted(1) is None:
                    sequence.stage = Stage.PREFILL
