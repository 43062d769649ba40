"""HTTP/1.1 connection with a timeout for request headers, which uvicorn lacks (slowloris clients).

The timeout runs from the start of the connection, and from the first byte of a further request, until the headers are
complete.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """A uvicorn connection with a header timeout.

    Attributes:
        header_timeout: seconds.
    """

    header_timeout = 10.0
    _deadline: asyncio.TimerHandle | None = None

    @classmethod
    def with_header_timeout(cls, seconds: float) -> type[TimedConnection]:
        """This class with another timeout."""
        return type(cls.__name__, (cls,), {"header_timeout": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._busy:
            self._start_timer()
        super().data_received(data)
        if self._busy:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _busy(self) -> bool:
        """Whether a request with complete headers is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        self._deadline = self.loop.call_later(self.header_timeout, self._close)

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if not self._busy:
            self.transport.close()
