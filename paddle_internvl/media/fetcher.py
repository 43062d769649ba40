"""Fetch of untrusted http(s) URLs with an SSRF guard: connections go to checked public addresses only.

In: a URL, a size limit and a timeout. Out: bytes, or a `MediaError`. Every connection resolves its host once, checks
all addresses and connects to one of them (no DNS rebinding); Host header, TLS name and certificate are the hostname's.
Proxies of the environment are not used. Every blocked or failed fetch gives the same error, so that a client learns
nothing about the server's network.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import anyio
import httpcore
import httpx

from paddle_internvl.media.addresses import is_public
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_RESOLVER_THREADS = 8  # a name server that never answers blocks these, and no other work
_HEADERS = [(b"User-Agent", b"paddle-internvl"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
_FAILED = "the URL can't be fetched"


class _BlockedError(Exception):
    """A host without permitted addresses, or a redirect or response that is not followed."""


def resolve(host: str) -> list[str]:
    """The IP addresses of a host, by the system's resolver.

    Raises:
        OSError, UnicodeError: the host has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(info[4][0] for info in found))


class _PinnedBackend(httpcore.AnyIOBackend):
    """Network backend that connects only to addresses it has resolved and checked itself."""

    def __init__(self, addresses_of: Callable[[str], Sequence[str]], permitted: Callable[[str], bool]):
        self._addresses_of, self._permitted = addresses_of, permitted
        self.threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(self.threads, self._addresses_of, host)
        except (OSError, UnicodeError) as error:
            raise _BlockedError from error
        if not addresses or not all(map(self._permitted, addresses)):
            raise _BlockedError
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class Fetcher:
    """Fetches URLs for all requests of a server, `concurrent_fetches` of them at a time.

    Args:
        limits: timeouts, redirects, connections, allowed domains and ports.
        addresses_of: host -> addresses.
        permitted: whether an address may be connected to.
        tls: certificates to trust; None: the public authorities' or SSL_CERT_FILE's.
    """

    def __init__(
        self,
        limits: MediaLimits,
        addresses_of: Callable[[str], Sequence[str]] = resolve,
        permitted: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ):
        self._limits = limits
        self._backend = _PinnedBackend(addresses_of, permitted)
        self._tls = tls
        self._slots = asyncio.Semaphore(limits.concurrent_fetches)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Read by the first fetch: reading the authorities' certificates delays a server's start."""
        return self._tls or httpx.create_ssl_context()

    def _connection(self) -> httpcore.AsyncConnectionPool:
        """A pool of one connection, for one request.

        A pool of all requests would lose connections: httpcore 1.0 counts the one of a task that is cancelled after
        connecting and before sending as in use, for ever.
        """
        return httpcore.AsyncConnectionPool(
            ssl_context=self._trusted, max_connections=1, max_keepalive_connections=0, retries=1,
            network_backend=self._backend,
        )  # fmt: skip

    async def fetch(
        self, url: str, limit: int, timeout: float, on_bytes: Callable[[int], None] = lambda count: None
    ) -> bytes:
        """The content of a URL.

        Args:
            url: http:// or https://.
            limit: most bytes.
            timeout: seconds for the whole fetch, redirects and the wait for a free connection included.
            on_bytes: called with the number of every further bytes; may raise.
        Raises:
            MediaError: a URL that is not allowed (400), more than `limit` bytes (413), any other failure (422).
        """
        target = self._checked(url)
        try:
            with anyio.fail_after(timeout):
                return await self._follow(target, limit, on_bytes)
        except (
            _BlockedError,
            OSError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
        ) as error:
            raise MediaError(_FAILED, 422) from error

    async def _follow(self, url: httpx.URL, limit: int, on_bytes: Callable[[int], None]) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            content, location = await self._get(url, limit, on_bytes)
            if location is None:
                return content
            try:
                target = self._checked(url.join(location))
            except (MediaError, httpx.InvalidURL) as error:
                raise _BlockedError from error
            if url.scheme == "https" != target.scheme:
                raise _BlockedError
            url = target
        raise _BlockedError

    async def _get(self, url: httpx.URL, limit: int, on_bytes: Callable[[int], None]) -> tuple[bytes, str | None]:
        """The content, and the location of a redirect."""
        limits = self._limits
        timeouts = {"connect": limits.connect_seconds, "read": limits.read_seconds, "write": limits.read_seconds}
        async with (
            self._slots,
            self._connection() as connection,
            connection.stream(
                b"GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=[(b"Host", url.netloc), *_HEADERS],
                extensions={"timeout": timeouts},
            ) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in headers:
                return b"", headers[b"location"].decode("latin-1")
            if response.status != 200 or headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise _BlockedError
            content = bytearray()
            async for piece in response.aiter_stream():
                on_bytes(len(piece))
                content += piece
                if len(content) > limit:
                    raise MediaError(f"the URL holds more than {limit} bytes", 413)
            return bytes(content), None

    def _checked(self, text: str | httpx.URL) -> httpx.URL:
        """The URL, if its text may be fetched; addresses are checked at the connection."""
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise MediaError("the URL is malformed") from error
        limits = self._limits
        if not limits.remote:
            raise MediaError("this server fetches no URLs; send the data as a data: URL")
        if url.scheme not in _PORTS or not url.host:
            raise MediaError("only http:// and https:// URLs with a host are fetched")
        if url.userinfo:
            raise MediaError("a URL with a user name or password is not fetched")
        if (url.port or _PORTS[url.scheme]) not in (*_PORTS.values(), *limits.allow_ports):
            raise MediaError("URLs with this port are not fetched; 80 and 443 are")
        if limits.allowed_domains and url.raw_host.decode().lower().rstrip(".") not in limits.allowed_domains:
            raise MediaError("this server does not fetch from this URL's host")
        return url

    async def aclose(self) -> None:
        """End the resolver's threads; a fetch that still runs closes its own connection."""
        self._backend.threads.shutdown(wait=False, cancel_futures=True)
