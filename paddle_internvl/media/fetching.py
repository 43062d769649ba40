"""The bytes behind an http(s) URL that a stranger names, without letting him look around with it.

In: a URL and a cap. Out: bytes, or a `MediaError`. Every connection resolves its host once, checks every address and
goes to one of those it has checked; Host header, TLS name and certificate stay the hostname's. Proxies of the
environment are not used. All that is blocked or fails gives one and the same error. Knows nothing about what the bytes
are.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpcore
import httpx

from paddle_internvl.media.addresses import is_public
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_RESOLVER_THREADS = 8  # a name server that never answers holds up fetches, nothing else
_HEADERS = [(b"User-Agent", b"paddle-internvl"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
_FAILED = "the URL can't be fetched"


class _BlockedError(Exception):
    """A host without addresses that may be connected to, a redirect or an answer that is not followed."""


def resolve(host: str) -> list[str]:
    """The IP addresses of a host, by the system's resolver.

    Raises:
        OSError, UnicodeError: there are none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(info[4][0] for info in found))


class _PinnedBackend(httpcore.AnyIOBackend):
    """Connects to the very addresses it has checked."""

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
    """Fetches for all requests of a server.

    Args:
        limits: what a fetch may cost. addresses_of: host -> addresses. permitted: whether an address may be connected
            to. tls: certificates to trust; None: the public authorities' or SSL_CERT_FILE's.
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
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(),
            max_connections=limits.concurrent_fetches,
            max_keepalive_connections=0,
            retries=1,
            network_backend=self._backend,
        )

    async def fetch(self, url: str, most: int, seconds: float) -> bytes:
        """The content of a URL.

        Args:
            most: bytes. seconds: for everything, redirects and the wait for a turn included.
        Raises:
            MediaError: not a URL that is fetched (400), larger than `most` (413), anything else (422).
        """
        target = self._checked(url)
        try:
            with anyio.fail_after(seconds):
                return await self._follow(target, most)
        except (
            _BlockedError,
            OSError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
        ) as error:
            raise MediaError(_FAILED, 422) from error

    async def _follow(self, url: httpx.URL, most: int) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            found = await self._get(url, most)
            if isinstance(found, bytes):
                return found
            try:
                following = self._checked(url.join(found))
            except (MediaError, httpx.InvalidURL) as error:
                raise _BlockedError from error
            if url.scheme == "https" != following.scheme:
                raise _BlockedError
            url = following
        raise _BlockedError

    async def _get(self, url: httpx.URL, most: int) -> bytes | str:
        """The content, or where it has moved to."""
        limits = self._limits
        timeouts = {"connect": limits.connect_seconds, "read": limits.read_seconds, "write": limits.read_seconds}
        async with self._pool.stream(
            b"GET",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[(b"Host", url.netloc), *_HEADERS],
            extensions={"timeout": timeouts},
        ) as response:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in headers:
                return headers[b"location"].decode("latin-1")
            if response.status != 200 or headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise _BlockedError
            pieces, size = [], 0
            async for piece in response.aiter_stream():
                size += len(piece)
                if size > most:
                    raise MediaError(f"the URL holds more than {most} bytes", 413)
                pieces.append(piece)
            return b"".join(pieces)

    def _checked(self, text: str | httpx.URL) -> httpx.URL:
        """A URL of a kind that is fetched; the addresses of its host are not known yet."""
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
        """Close what is open."""
        await self._pool.aclose()
        self._backend.threads.shutdown(wait=False, cancel_futures=True)
