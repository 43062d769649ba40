"""HTTP/1.1 connection with a timeout for request headers and a limit of connections that silent clients can't use up.

The timeout, which uvicorn lacks, runs from the start of the connection, and from the first byte of a further request,
until the headers are complete. A new connection above the limit closes those that have waited longest for their
requests: silent clients keep nobody out.
"""

from __future__ import annotations

import asyncio
import heapq

from uvicorn.protocols.http.h11_impl import H11Protocol

from paddle_internvl.serve.accesslog import log

_EVICTION_DELAY = 0.1  # seconds; a client that has just connected sends its request meanwhile


class TimedConnection(H11Protocol):
    """A uvicorn connection with a header timeout.

    Attributes:
        header_timeout: seconds.
        max_connections: open connections of the server.
        waiting_since: when the connection began to wait for its request, by the event loop's clock.
    """

    header_timeout = 10.0
    max_connections = 512
    _deadline: asyncio.TimerHandle | None = None
    waiting_since = 0.0

    @classmethod
    def with_limits(cls, header_timeout: float, max_connections: int) -> type[TimedConnection]:
        """This class with other limits."""
        return type(cls.__name__, (cls,), {"header_timeout": header_timeout, "max_connections": max_connections})

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.max_connections:
            self.loop.call_later(_EVICTION_DELAY, self._evict)

    def _evict(self) -> None:
        """Close the connections that have waited longest for their requests, down to seven eighths of the limit; those
        that wait for headers before those that wait for a body."""
        if len(self.connections) <= self.max_connections:
            return
        waiting = [each for each in self.connections if each.waits]
        count = len(self.connections) - self.max_connections + self.max_connections // 8
        evicted = heapq.nsmallest(count, waiting, key=lambda each: (each.has_headers, each.waiting_since))
        if evicted:
            log.warning("%d connections are open; %d without a request are closed", len(self.connections), len(evicted))
        for connection in evicted:
            self.connections.discard(connection)
            connection.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self.has_headers:
            self._start_timer()
        super().data_received(data)
        if self.has_headers:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def has_headers(self) -> bool:
        """Whether the headers of a request have arrived and its response is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """Whether the connection waits for a request or for a part of it."""
        return not self.has_headers or self.cycle.more_body

    def _start_timer(self) -> None:
        self.waiting_since = self.loop.time()
        self._deadline = self.loop.call_later(self.header_timeout, self._close)

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if not self.has_headers:
            self.transport.close()
