"""The hosts that the soak test's requests name: one that counts as public, one that no request may reach.

In: media to offer. Out: URLs. The public one also redirects where it should not, never ends, and lies about lengths.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.media.hostile import HEAD, Server, answer, drip, moved, serving
from tests.soak.inside import PUBLIC
from tests.soak.questions import Medium

PRIVATE = "127.0.0.1"
_SOME = bytes(1 << 16)


@dataclass(frozen=True)
class Hosts:
    """Both hosts, listening."""

    public: Server
    private: Server

    @property
    def outside(self) -> str:
        """The public host's URL, without a path."""
        return f"http://{PUBLIC}:{self.public.port}"

    @property
    def inside(self) -> str:
        """The private host's URL, without a path."""
        return f"http://{PRIVATE}:{self.private.port}"

    def url_of(self, medium: Medium) -> str:
        """Where a medium is offered."""
        return f"{self.outside}{_path(medium)}"


@asynccontextmanager
async def hosts(media: Iterable[Medium]) -> AsyncIterator[Hosts]:
    """Hosts that listen. media: what the public one offers, beside its traps."""
    offered = {_path(medium): answer(medium.data) for medium in media}
    offered["/moved"] = moved(next(iter(offered), "/nothing"))
    async with serving(offered, PUBLIC) as public, serving({}, PRIVATE) as private:
        here = Hosts(public, private)
        offered.update(
            {
                "/to-private": moved(f"{here.inside}/secret"),
                "/to-cloud": moved("http://169.254.169.254/latest/meta-data/", "307 Temporary Redirect"),
                "/to-v6": moved(f"http://[::ffff:127.0.0.1]:{private.port}/secret", "301 Moved Permanently"),
                "/to-file": moved("file:///etc/passwd"),
                "/round": moved("/round"),
                "/endless": drip(HEAD + b"\r\n" + _SOME, _SOME, 0),
                "/slow": drip(HEAD + b"\r\n", b"x", 0.5),
                "/headers": drip(HEAD, b"X: y\r\n", 0.01),
                "/less": answer(b"x" * 100, length=1000),
                "/zipped": answer(b"x" * 100, "Content-Encoding: gzip"),
                "/text": answer(b"this is no picture"),
            }
        )
        yield here


def _path(medium: Medium) -> str:
    return "/" + hashlib.sha256(medium.data).hexdigest()[:16]
