"""Bytes of fetched media that all requests of a server hold together, with a limit.

A request takes bytes while its media arrive, and releases them when its prompt is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paddle_internvl.media.errors import MediaError


class ByteBudget:
    """A limit of bytes, shared by all requests of an event loop.

    Args:
        limit: bytes.
    Attributes:
        held: bytes that requests hold now.
    """

    def __init__(self, limit: int):
        self._limit, self.held = limit, 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """The share of one request, released at the end of the context.

        Returns:
            A function that takes a further number of bytes, or raises a `MediaError` (429).
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.held + count > self._limit:
                raise MediaError("too many bytes of media are in work; try again", 429)
            self.held += count
            taken += count

        try:
            yield take
        finally:
            self.held -= taken
