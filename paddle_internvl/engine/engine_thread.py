"""An engine in a thread of its own: any thread or event loop submits requests, one thread computes.

In: prompts or requests. Out: their pieces, as an async stream, an iterator, or by a callback. Closing a stream cancels
its requests within one step.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import partial

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.request import (
    EngineClosedError,
    Piece,
    Prompt,
    QueueFullError,
    RequestFailedError,
    RequestState,
)
from paddle_internvl.engine.sequence import Sequence as EngineSequence
from paddle_internvl.engine.sequence import Stage
from paddle_internvl.engine.stats import EngineStats, PromptProgress
from paddle_internvl.generation.config import GenerationConfig

_STALLED = 120.0  # seconds without a step while there is work
_MAX_FAILURES = 5  # in a row
_RETRY_SECONDS = 30.0  # after the last failure: an engine without requests would stay unhealthy for ever
_MAX_QUEUED_TILES = 1024  # without visual tokens, of all requests: 0.6 GB in uint8; a single request may have more
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Submission:
    """Requests that are submitted together.

    Attributes:
        requests: the requests.
        deliver: called in the engine's thread with the number of a request and its piece or exception.
        sequences: the requests in the engine; empty while the submission is in the inbox.
    """

    requests: Sequence[RequestState]
    deliver: Callable[[int, Piece | Exception], None]
    sequences: list[EngineSequence] = field(default_factory=list)


class EngineThread:
    """A thread that steps an engine. Thread-safe: any thread or event loop may call its methods.

    Args:
        engine: the engine; only the thread calls its `step` and `add` from now on.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._changed = threading.Condition()  # guards the inbox and the two flags; notified at every change
        self._inbox: list[Submission] = []  # not added to the engine yet
        self._calls: list[tuple[Future, Callable[[], object]]] = []  # not made yet
        self._accepting, self._closing = True, False
        self._last_step = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        engine.should_yield = lambda: bool(self._inbox)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, requests: Sequence[RequestState], deliver: Callable[[int, Piece | Exception], None]) -> Submission:
        """Submit requests; any thread may call this.

        Args:
            requests: from `Engine.request`.
            deliver: called in the engine's thread with the number of a request and its piece, or the exception that
                ended it.
        Raises:
            QueueFullError: too many requests, or tiles of their pictures, are queued.
            EngineClosedError: the engine is draining or closed.
        """
        submission = Submission(requests, deliver)
        with self._changed:
            if not self._accepting or not self._thread.is_alive():
                raise EngineClosedError("the engine takes no more requests")
            self._require_room(requests)
            self._inbox.append(submission)
            self._changed.notify_all()
        return submission

    def _require_room(self, requests: Sequence[RequestState]) -> None:
        config, sequences = self.engine.config, self.engine.scheduler.sequences
        if config.max_waiting is None:
            return
        queued = len(sequences) + self._num_submitted()
        if queued and queued + len(requests) > config.max_batch_size + config.max_waiting:
            raise QueueFullError(f"{queued} requests are queued or running already; try again later")
        submitted = [request for submission in self._inbox for request in submission.requests]
        tiles = sum(s.pictures.remaining for s in sequences) + sum(request.tiles for request in submitted)
        if tiles and tiles + sum(request.tiles for request in requests) > _MAX_QUEUED_TILES:
            raise QueueFullError(f"{tiles} tiles of pictures are queued already; try again later")

    def _num_submitted(self) -> int:
        """Requests in the inbox."""
        return sum(len(submission.requests) for submission in list(self._inbox))

    def cancel(self, submission: Submission) -> None:
        """Cancel the unfinished requests of a submission; any thread may call this."""
        with self._changed:
            if submission in self._inbox:
                self._inbox.remove(submission)
            for sequence in submission.sequences:
                self.engine.cancel(sequence)

    async def stream(self, prompt: Prompt, config: GenerationConfig) -> AsyncIterator[Piece]:
        """Pieces of the config's n answers to a prompt; the last piece of each answer has its response.

        Raises:
            QueueFullError: see `submit`.
            EngineClosedError: see `submit`.
            ContextOverflowError: see `Engine.request`.
            ValueError: see `Engine.request`.
            RequestFailedError: the request failed inside the engine.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
        requests = [self.engine.request(prompt, config, index) for index in range(config.n)]
        submission = self.submit(
            requests, lambda _, piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)
        )  # fmt: skip
        unfinished = len(requests)
        try:
            while unfinished:
                piece = _raise_exception(await pieces.get())
                unfinished -= piece.response is not None
                yield piece
        finally:
            self.cancel(submission)

    def generate(self, requests: Sequence[RequestState]) -> Iterator[tuple[int, Piece]]:
        """Number and piece of requests that are answered together, for a thread without an event loop.

        Raises:
            As `stream`.
        """
        pieces: queue.SimpleQueue = queue.SimpleQueue()
        submission = self.submit(requests, lambda number, piece: pieces.put((number, piece)))
        unfinished = len(requests)
        try:
            while unfinished:
                number, piece = pieces.get()
                unfinished -= _raise_exception(piece).response is not None
                yield number, piece
        finally:
            self.cancel(submission)

    def call(self, function: Callable[[], object]) -> Future:
        """Call a function in the engine's thread, between two steps; any thread may call this.

        Returns:
            The future of its result or exception.
        Raises:
            EngineClosedError: the engine is draining or closed.
        """
        future: Future = Future()
        with self._changed:
            if not self._accepting or not self._thread.is_alive():
                raise EngineClosedError("the engine takes no more requests")
            self._calls.append((future, function))
            self._changed.notify_all()
        return future

    def drain(self) -> None:
        """Refuse new requests from now on."""
        with self._changed:
            self._accepting = False

    def close(self, timeout: float = 0) -> None:
        """Drain, wait up to `timeout` seconds for the submitted requests, cancel the rest, end the thread."""
        self.drain()
        with self._changed:
            self._changed.wait_for(lambda: not (self._thread.is_alive() and self._has_work()), timeout)
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _has_work(self) -> bool:
        return bool(self._inbox or self._calls) or not self.engine.idle

    @property
    def healthy(self) -> bool:
        """Whether the thread runs, makes steps, and requests don't fail one after another; half a minute after the last
        failure the next request may show that they succeed again."""
        since_step = time.monotonic() - self._last_step
        fails = self.engine.counters.failed_in_row >= _MAX_FAILURES and since_step < _RETRY_SECONDS
        return self._thread.is_alive() and not fails and (self.engine.idle or since_step < _STALLED)

    def stats(self) -> EngineStats:
        """Totals and present state."""
        engine = self.engine
        stages = [sequence.stage for sequence in list(engine.scheduler.running)]
        running = stages.count(Stage.DECODE)
        return EngineStats(
            **asdict(engine.counters),
            waiting=len(engine.scheduler.waiting) + self._num_submitted(),
            running=running,
            prefilling=len(stages) - running,
            blocks_used=engine.pool.used,
            blocks_total=engine.pool.total,
        )

    def prompt_progress(self) -> list[PromptProgress]:
        """Progress of the running requests that have no token yet; any thread may call this."""
        before_decode = (Stage.VISION, Stage.PREFILL)
        return [s.prompt_progress for s in list(self.engine.scheduler.running) if s.stage in before_decode]

    # ------------------------------------------------------------------------------------------------- the thread
    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._make_call()
                self._step()
        finally:  # also after an unexpected error: no request waits for ever
            self._end_all(EngineClosedError("the server is shutting down"))

    def _wait_for_work(self) -> bool:
        """Wait for requests and add them to the engine; returns False once `close` ends the thread."""
        with self._changed:
            self._changed.notify_all()  # `close` waits for the last request
            self._changed.wait_for(lambda: self._closing or self._has_work())
            while self._inbox and not self._closing:
                self._add(self._inbox.pop(0))
            return not self._closing

    def _add(self, submission: Submission) -> None:
        try:
            for number, request in enumerate(submission.requests):
                deliver = partial(self._deliver, submission, number)
                submission.sequences.append(self.engine.add(request, deliver))
        except Exception as error:
            self.cancel(submission)
            self._deliver(submission, len(submission.sequences), RequestFailedError.caused_by(error))

    def _deliver(self, submission: Submission, number: int, piece: Piece | Exception) -> None:
        try:
            submission.deliver(number, piece)
        except Exception as error:  # the receiver is gone: its event loop is closed
            _log.debug("a piece could not be delivered: %s", error)
            self.cancel(submission)

    def _make_call(self) -> None:
        """Make the first call that waits."""
        with self._changed:
            future, function = self._calls.pop(0) if self._calls else (None, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        self._last_step = time.monotonic()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    def _step(self) -> None:
        self._last_step = time.monotonic()
        try:
            self.engine.step()
        except Exception as error:  # not of a single request: all are ended, and the next ones may succeed
            _log.error("the engine failed", exc_info=error)
            self._end_sequences(RequestFailedError.caused_by(error))

    def _end_all(self, error: Exception) -> None:
        """Refuse new requests, and end all others with an error."""
        with self._changed:
            self._accepting = False
            while self._inbox:
                submission = self._inbox.pop()
                for number in range(len(submission.requests)):
                    self._deliver(submission, number, error)
            while self._calls:
                future = self._calls.pop()[0]
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            self._end_sequences(error)
            self._changed.notify_all()

    def _end_sequences(self, error: Exception) -> None:
        for sequence in self.engine.scheduler.sequences:
            self.engine.drop(sequence)
            sequence.deliver(error)


def _raise_exception(piece: Piece | Exception) -> Piece:
    if isinstance(piece, RequestFailedError):
        _log.error("a request failed: %s", piece, exc_info=piece.__cause__)
    if isinstance(piece, Exception):
        raise piece
    return piece
