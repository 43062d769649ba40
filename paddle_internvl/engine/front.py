"""An engine in a thread of its own, with an async front: many event loops' tasks ask, one thread computes.

In: prompts, from any thread's event loop. Out: an async stream of pieces each. A stream that is closed cancels its
request within one step. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.request import EngineClosedError, Piece, Prompt, QueueFullError, RequestFailedError
from paddle_internvl.engine.sequence import Sequence, Stage
from paddle_internvl.generation.config import GenerationConfig

_STUCK = 120.0  # seconds without a step while there is work
_FAILURES = 8  # one after another, without an answer between them
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStats:
    """What an engine is doing, and has done since it began.

    Attributes:
        waiting, running, prefilling: answers asked for and not admitted; being decoded; before that. blocks_used,
            blocks_total: of the KV cache. The others: see `Counters`.
    """

    waiting: int
    running: int
    prefilling: int
    blocks_used: int
    blocks_total: int
    steps: int
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    vision_tiles: int
    finished: int
    cancelled: int
    failed: int
    failed_in_row: int
    out_of_memory: int


class EngineThread:
    """See the module.

    Args:
        engine: nobody else may use it from now on.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._changed = threading.Condition()
        self._inbox: list[Callable[[], None]] = []  # what to tell the engine before its next step
        self._asked = 0  # answers in the inbox
        self.engine.hurry = lambda: bool(self._inbox)
        self._accepting, self._ending = True, False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    async def stream(self, prompt: Prompt, config: GenerationConfig) -> AsyncIterator[Piece]:
        """Pieces of the config's n answers as they are made; the last one of each has its response.

        Raises:
            QueueFullError: as many wait as may. EngineClosedError: draining or closed. ContextOverflowError,
            ValueError: see `Engine.answer`. RequestFailedError: it went wrong on the way.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def deliver(piece: Piece | Exception) -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the loop is closed: nobody reads this any more
                self._tell(lambda: [self.engine.cancel(sequence) for sequence in sequences])

        def add() -> None:
            self._asked -= len(answers)
            sequences.extend(self.engine.add(answer, deliver) for answer in answers)

        sequences: list[Sequence] = []
        answers = [self.engine.answer(prompt, config, index) for index in range(config.n)]
        with self._changed:
            if not self._accepting or not self._thread.is_alive():
                raise EngineClosedError("the engine takes no more requests")
            self._require_room(len(answers))
            self._asked += len(answers)
            self._inbox.append(add)
            self._changed.notify()
        try:
            open_answers = len(answers)
            while open_answers:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    if isinstance(piece, RequestFailedError):
                        _log.error("a request failed: %s", piece, exc_info=piece.__cause__)
                    raise piece
                open_answers -= piece.response is not None
                yield piece
        finally:
            self._tell(lambda: [self.engine.cancel(s) for s in sequences if s.stage is not Stage.ENDED])

    def _require_room(self, answers: int) -> None:
        limits = self.engine.limits
        if limits.max_waiting is None:
            return
        busy = len(self.engine.active) + len(self.engine.waiting) + self._asked
        if busy and busy + answers > limits.max_batch_size + limits.max_waiting:
            raise QueueFullError(f"{busy} answers are asked for already; try again later")

    def _tell(self, what: Callable[[], object]) -> None:
        with self._changed:
            self._inbox.append(what)
            self._changed.notify()

    def drain(self) -> None:
        """Take no new requests from now on."""
        with self._changed:
            self._accepting = False

    def close(self, timeout: float = 0) -> None:
        """Drain, let the running requests go on for up to `timeout` seconds, cancel the rest, end the thread."""
        self.drain()
        until = time.monotonic() + timeout
        while self._thread.is_alive() and time.monotonic() < until and not (self.engine.idle and not self._inbox):
            time.sleep(0.01)
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def healthy(self) -> bool:
        """Whether the thread is there and goes on, and requests do not all fail."""
        if not self._thread.is_alive() or self.engine.counters.failed_in_row >= _FAILURES:
            return False
        return self.engine.idle or time.monotonic() - self._beat < _STUCK

    def stats(self) -> EngineStats:
        """What is going on."""
        engine = self.engine
        stages = [sequence.stage for sequence in list(engine.active)]
        running = stages.count(Stage.DECODE)
        return EngineStats(
            waiting=len(engine.waiting) + self._asked,
            running=running,
            prefilling=len(stages) - running,
            blocks_used=engine.pool.used,
            blocks_total=engine.pool.total,
            **asdict(engine.counters),
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._inbox or self._ending or not self.engine.idle)
                told, self._inbox = self._inbox, []
                ending = self._ending
            for what in told:
                what()
            self._beat = time.monotonic()
            if ending:
                self._end_all(EngineClosedError("the server is shutting down"))
                return
            if self.engine.idle:
                continue
            try:
                self.engine.step()
            except Exception as error:  # a fault of the engine's own: whoever waits is told, and the next may try
                _log.error("the engine failed", exc_info=error)
                self._end_all(RequestFailedError("the request failed inside the engine"))

    def _end_all(self, error: Exception) -> None:
        for sequence in (*self.engine.active, *self.engine.waiting):
            self.engine.drop(sequence)
            sequence.deliver(error)
