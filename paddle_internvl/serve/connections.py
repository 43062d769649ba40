"""uvicorn's HTTP/1.1 connection with a time limit on headers, which uvicorn lacks: a client that sends them byte by
byte would hold its connection for ever.

The limit runs from the connection's start, and from a further request's first byte, until the headers are whole.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """See the module. header_seconds: the limit."""

    header_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None

    @classmethod
    def with_header_timeout(cls, seconds: float) -> type[TimedConnection]:
        """This class with another limit."""
        return type(cls.__name__, (cls,), {"header_seconds": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._busy:
            self._begin()
        super().data_received(data)
        if self._busy:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    @property
    def _busy(self) -> bool:
        """Whether a request whose headers are there is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _begin(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if not self._busy:
            self.transport.close()
