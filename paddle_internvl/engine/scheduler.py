"""The scheduler: admission of waiting sequences, and the order in which admitted ones get prefill and vision.

Admission is strict FIFO: a large request at the head of the queue waits until it fits, and those behind it wait too, so
that none starves. Of the admitted ones the shortest remaining work goes first, with ageing so that long requests don't
starve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from paddle_internvl.engine.block_pool import BlockPool
from paddle_internvl.engine.sequence import Sequence, Stage

_MAX_PENDING_TILES = 256  # of all admitted sequences; a single one may have more


class Scheduler:
    """Queue of waiting sequences and list of admitted ones.

    Args:
        pool: the block pool.
        max_batch_size: sequences admitted at once.
    Attributes:
        waiting: not admitted yet, in order of arrival.
        running: admitted.
        steps: steps of the engine so far.
    """

    def __init__(self, pool: BlockPool, max_batch_size: int):
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.steps = 0
        self._pool, self._max_batch_size = pool, max_batch_size

    @property
    def sequences(self) -> list[Sequence]:
        """All sequences, admitted or not."""
        return [*self.running, *self.waiting]

    def admit(self) -> None:
        """Admit waiting sequences in order, as far as batch size, KV blocks and pending tiles allow."""
        while self.waiting and len(self.running) < self._max_batch_size:
            sequence = self.waiting[0]
            pending = sum(running.pictures.remaining for running in self.running)
            if pending and pending + sequence.pictures.remaining > _MAX_PENDING_TILES:
                return
            if not self._pool.reserve(sequence.max_blocks):
                return
            self.running.append(self.waiting.popleft())
            sequence.reserved_blocks, sequence.admitted_step = sequence.max_blocks, self.steps
            sequence.stage = Stage.PREFILL if sequence.pictures.lookup() else Stage.VISION

    def in_stage(self, stage: Stage) -> list[Sequence]:
        """Admitted sequences of a stage, in order of admission."""
        return [sequence for sequence in self.running if sequence.stage is stage]

    def by_priority(self, stage: Stage, work: Callable[[Sequence], int], budget: int) -> list[Sequence]:
        """Sequences of a stage, least remaining work first; every step since admission counts as a quarter of a step's
        budget.

        Args:
            stage: VISION or PREFILL.
            work: remaining tiles or tokens of a sequence.
            budget: tiles or tokens of a step.
        """

        def aged(sequence: Sequence) -> float:
            return work(sequence) - (self.steps - sequence.admitted_step) * budget / 4

        return sorted(self.in_stage(stage), key=aged)

    def finish(self, sequence: Sequence) -> None:
        """Remove a sequence and release its blocks."""
        (self.waiting if sequence.stage is Stage.WAITING else self.running).remove(sequence)
        sequence.release(self._pool)
