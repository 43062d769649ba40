"""Rows 1, 2, 3, 8, 22: fetches of untrusted URLs, against a server on this machine that misbehaves."""

import asyncio
import gzip
import ssl
import threading
from functools import partial

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.media.addresses import is_public
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.fetcher import Fetcher
from paddle_internvl.media.limits import MediaLimits
from tests.media.hostile import HEAD, answer, drip, moved, serving, silence

BODY = bytes(range(256)) * 40
TRUST = ssl.create_default_context()
UNIFORM = "the URL can't be fetched"


def run(main):
    """The result of `main`, which fails after 20 seconds."""

    async def limited():
        with anyio.fail_after(20):
            return await main()

    return asyncio.run(limited())


def fetcher(*ports, names=None, tls=None, **limits):
    """A fetcher for which 127.0.0.1 is public, and the address of every host that is not in `names`."""
    table = names or {}

    def addresses_of(host):
        found = table.get(host, ["127.0.0.1"])
        return found.pop(0) if found and isinstance(found[0], list) else found

    return Fetcher(
        MediaLimits(allow_ports=ports, **limits), addresses_of, lambda a: a == "127.0.0.1" or is_public(a), tls or TRUST
    )


async def fetched(url, answers, limit=10**5, timeout=5.0, **options):
    """The result of one fetch, bytes or a MediaError; and the server."""
    async with serving(answers) as server:
        fetch = fetcher(server.port, **options)
        try:
            result = await fetch.fetch(url.replace("PORT", str(server.port)), limit, timeout)
        except MediaError as error:
            result = error
        await fetch.aclose()
        return result, server


def get(url, answers, **options):
    return run(partial(fetched, url, answers, **options))


def refused(result, status=422, text=UNIFORM):
    assert isinstance(result, MediaError), result
    assert (result.status, str(result)) == (status, text)


def test_honest(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    result, server = get("http://pictures.example:PORT/a b.png?x=ü#part", {"/a%20b.png?x=%C3%BC": answer(BODY)})
    assert result == BODY
    (head,) = server.heads
    assert f"\r\nHost: pictures.example:{server.port}\r\n" in head and "\r\nAccept-Encoding: identity\r\n" in head


def test_chunked():
    response = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert get("http://a.example:PORT/", {"/": response})[0] == b"abcde"


LOCAL = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f000001",
    "127.1",
    "127.0.0.1.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "127。0。0。1",
    "0",
]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_is_never_reached(host):
    async def main():
        async with serving({"/": answer(BODY)}) as server:
            fetch = Fetcher(MediaLimits(allow_ports=(server.port,)))
            with pytest.raises(MediaError) as caught:
                await fetch.fetch(f"http://{host}:{server.port}/", 10**5, 5)
            await fetch.aclose()
            assert server.requests == 0
            refused(caught.value)

    run(main)


def test_one_private_address_among_public_ones_blocks_the_host():
    result, server = get("http://a.example:PORT/", {"/": answer(BODY)}, names={"a.example": ["127.0.0.1", "10.0.0.1"]})
    refused(result)
    assert server.requests == 0


@pytest.mark.parametrize("way", ["redirect", "second fetch"])
def test_rebinding(way):
    """The name's second answer is an internal server: it is checked anew, and no connection resolves a second time."""

    async def main():
        outside, inside = {"/": moved("/again"), "/b": answer(BODY)}, {"/again": answer(BODY), "/b": answer(BODY)}
        async with serving(outside) as server, serving(inside, "127.0.0.2", server.port) as internal:
            answers = [["127.0.0.1"], ["127.0.0.2"]]
            fetch = fetcher(server.port, names={"evil.example": answers})
            if way == "second fetch":
                assert await fetch.fetch(f"http://evil.example:{server.port}/b", 10**5, 5) == BODY
                assert answers == [["127.0.0.2"]]  # resolved once
            with pytest.raises(MediaError, match=UNIFORM):
                await fetch.fetch(f"http://evil.example:{server.port}/", 10**5, 5)
            await fetch.aclose()
            assert (server.requests, internal.requests, answers) == (1, 0, [])

    run(main)


@pytest.mark.parametrize("to", ["/c", "//b.example:PORT/c", "http://b.example:PORT/c"])
def test_redirects(to):
    def main():
        async def inner():
            async with serving({}) as server:
                to_here = to.replace("PORT", str(server.port))
                server.answers = {
                    "/": moved("/a", "301 x"),
                    "/a": moved("b", "307 x"),
                    "/b": moved(to_here),
                    "/c": answer(BODY),
                }
                fetch = fetcher(server.port)
                assert await fetch.fetch(f"http://a.example:{server.port}/", 10**5, 5) == BODY
                await fetch.aclose()
                assert len(server.heads) == 4

        return inner()

    run(main)


NEVER_FOLLOWED = [
    "http://internal.example:PORT/c",
    "http://10.0.0.1/c",
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "gopher://a.example/",
    "data:,x",
    "http://user:word@a.example:PORT/c",
    "http://a.example:22/",
    "http://[::1/",
    "http://0177.0.0.1/",
]


@pytest.mark.parametrize("to", NEVER_FOLLOWED)
def test_redirects_not_followed(to):
    async def main():
        async with serving({"/c": answer(BODY)}) as server:
            server.answers["/"] = moved(to.replace("PORT", str(server.port)))
            names = {
                "internal.example": ["127.0.0.2"],
                "10.0.0.1": ["10.0.0.1"],
                "169.254.169.254": ["169.254.169.254"],
            }
            fetch = fetcher(server.port, names=names)
            with pytest.raises(MediaError) as caught:
                await fetch.fetch(f"http://a.example:{server.port}/", 10**5, 5)
            await fetch.aclose()
            refused(caught.value)
            assert len(server.heads) == 1

    run(main)


def test_too_many_redirects():
    chain = {f"/{k}": moved(f"/{k + 1}") for k in range(9)}
    result, server = get("http://a.example:PORT/0", chain)
    refused(result)
    assert len(server.heads) == 4
    refused(get("http://a.example:PORT/", {"/": moved("/")}, max_redirects=0)[0])


SLOW = {
    "never answers": silence,
    "drips its body": drip(HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
    "drips its headers": drip(HEAD, b"X: y\r\n"),
    "interim answers only": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", SLOW)
def test_total_timeout(behaviour):
    refused(get("http://a.example:PORT/", {"/": SLOW[behaviour]}, timeout=0.3)[0])


def test_read_timeout():
    refused(get("http://a.example:PORT/", {"/": silence}, timeout=60, read_seconds=0.1)[0])


def test_redirects_share_the_timeout():
    """Each response comes within the timeout; the server never stops redirecting."""

    async def late(writer):
        await asyncio.sleep(0.1)
        writer.write(moved("/"))

    result, server = get("http://a.example:PORT/", {"/": late}, timeout=0.25, max_redirects=10**6)
    refused(result)
    assert server.requests > 1


def test_resolver_that_hangs():
    async def main():
        go = threading.Event()
        fetch = Fetcher(MediaLimits(), lambda host: go.wait() and ["127.0.0.1"])
        try:
            with pytest.raises(MediaError, match=UNIFORM):
                await fetch.fetch("http://a.example/", 10, 0.1)
            assert not go.is_set()  # the resolver's thread still waits
        finally:
            go.set()
            await fetch.aclose()

    run(main)


@pytest.mark.parametrize(
    "response",
    [
        drip(HEAD + b"\r\n", b"x" * 5000, 0),
        drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1388\r\n" + b"x" * 5000 + b"\r\n", 0),
        answer(BODY, length=10**9),
    ],
    ids=["endless", "endless chunks", "long"],
)
def test_too_large(response):
    refused(get("http://a.example:PORT/", {"/": response}, limit=9000)[0], 413, "the URL holds more than 9000 bytes")


def test_content_length_is_not_believed():
    assert get("http://a.example:PORT/", {"/": answer(BODY, length=100)}, limit=100)[0] == BODY[:100]
    refused(get("http://a.example:PORT/", {"/": answer(b"short", length=100)})[0])
    refused(get("http://a.example:PORT/", {"/": HEAD + b"Content-Length: -1\r\n\r\nabc"})[0])
    assert get("http://a.example:PORT/", {"/": answer(BODY)}, limit=len(BODY))[0] == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_responses_are_refused(coding):
    bomb = gzip.compress(bytes(10**6))
    refused(get("http://a.example:PORT/", {"/": answer(bomb, f"Content-Encoding: {coding}")}, limit=10**5)[0])


@pytest.mark.parametrize(
    "status", ["204 None", "206 Part", "304 Same", "401 Who", "403 No", "404 Gone", "500 Oh", "302 x"]
)
def test_other_statuses_are_refused(status):
    refused(get("http://a.example:PORT/", {"/": answer(b"secret", status=status)})[0])


def test_closed_port():
    async def main():
        async with serving({}) as server:
            port = server.port
        fetch = fetcher(port)
        with pytest.raises(MediaError) as caught:
            await fetch.fetch(f"http://a.example:{port}/", 10, 5)
        refused(caught.value)
        await fetch.aclose()

    run(main)


def test_a_second_address_is_tried(monkeypatch):
    async def main():
        async with serving({"/": answer(BODY)}) as server:
            fetch = Fetcher(
                MediaLimits(allow_ports=(server.port,)), lambda host: ["127.0.0.3", "127.0.0.1"], lambda address: True
            )
            assert await fetch.fetch(f"http://a.example:{server.port}/", 10**5, 5) == BODY
            await fetch.aclose()

    run(main)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://a.example/", "only http:// and https:// URLs with a host are fetched"),
        ("http:///a", "only http:// and https:// URLs with a host are fetched"),
        ("http://u@a.example/", "a URL with a user name or password is not fetched"),
        ("http://a.example\\@b.example/", "a URL with a user name or password is not fetched"),
        ("http://a.example:8080/", "URLs with this port are not fetched; 80 and 443 are"),
        ("http://[::1/", "the URL is malformed"),
        ("http://a.example/" + "x" * 70000, "the URL is malformed"),
    ],
)
def test_urls_that_are_never_fetched(url, text):
    async def main():
        fetch = Fetcher(MediaLimits(), lambda host: pytest.fail("resolved"))
        with pytest.raises(MediaError) as caught:
            await fetch.fetch(url, 10, 1)
        await fetch.aclose()
        refused(caught.value, 400, text)

    run(main)


def test_allowed_domains_and_no_remote():
    answers = {"/": answer(BODY), "/away": moved("http://b.example/")}
    domains = ("A.example.", "xn--bcher-kva.example")
    for host in ("a.example", "A.EXAMPLE", "bücher.example"):
        assert get(f"http://{host}:PORT/", answers, allowed_domains=domains)[0] == BODY
    for host in ("b.example", "sub.a.example", "aXexample", "127.0.0.1"):
        result, server = get(f"http://{host}:PORT/", answers, allowed_domains=domains)
        refused(result, 400, "this server does not fetch from this URL's host")
        assert server.requests == 0
    refused(get("http://a.example:PORT/away", answers, allowed_domains=domains)[0])
    assert get("http://a.example:PORT/", answers, remote=False)[0].status == 400


def test_concurrent_fetches_are_limited():
    async def late(writer):
        await asyncio.sleep(0.1)
        writer.write(answer(BODY))

    async def main():
        async with serving({"/": late}) as server:
            fetch = fetcher(server.port, concurrent_fetches=2)
            url = f"http://a.example:{server.port}/"
            assert await asyncio.gather(*(fetch.fetch(url, 10**5, 10) for _ in range(6))) == [BODY] * 6
            assert (server.max_open, server.requests) == (2, 6)
            await fetch.aclose()

    run(main)


def test_cancelling_closes_the_sockets():
    """And frees the connections of the pool: the last fetch gets one."""

    async def main():
        async with serving({"/": SLOW["drips its body"], "/b": answer(BODY)}) as server:
            fetch = fetcher(server.port, concurrent_fetches=2)
            url = f"http://a.example:{server.port}/"
            for _ in range(3):
                tasks = [asyncio.create_task(fetch.fetch(url, 10**5, 30)) for _ in range(4)]  # two of them wait
                while server.open < 2:
                    await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                assert all(
                    isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True)
                )
                while server.open:  # or `run` fails
                    await asyncio.sleep(0.01)
            assert await fetch.fetch(url + "b", 10**5, 5) == BODY
            await fetch.aclose()

    run(main)


@pytest.mark.parametrize("steps", range(12))
def test_cancelling_just_after_connecting_closes_the_socket(steps):
    """`steps` of the event loop after the server has accepted, before the request is sent or while it is."""

    async def main():
        async with serving({"/": SLOW["drips its body"], "/b": answer(BODY)}) as server:
            fetch = fetcher(server.port, concurrent_fetches=1)
            url = f"http://a.example:{server.port}/"
            task = asyncio.create_task(fetch.fetch(url, 10**5, 30))
            while not server.requests:
                await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await fetch.fetch(url + "b", 10**5, 5) == BODY
            while server.open:  # or `run` fails
                await asyncio.sleep(0.01)
            await fetch.aclose()

    run(main)


@pytest.fixture(scope="module")
def authority():
    trustme = pytest.importorskip("trustme")
    ca = trustme.CA()
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)

    def server_context(name, seen):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        context.sni_callback = lambda _socket, asked, _context: seen.append(asked)
        return context

    return trusting, server_context


@pytest.mark.parametrize(("name", "trusted", "works"), [("a.example", 1, 1), ("b.example", 1, 0), ("a.example", 0, 0)])
def test_tls_name_stays_the_hosts(authority, name, trusted, works):
    trusting, server_context = authority

    async def main():
        seen, answers = [], {"/": answer(BODY)}
        async with serving({"/": answer(BODY)}) as plain, serving(answers, tls=server_context(name, seen)) as server:
            fetch = fetcher(server.port, plain.port, tls=trusting if trusted else None)
            url = f"https://a.example:{server.port}/"
            if works:
                assert await fetch.fetch(url, 10**5, 5) == BODY
                assert f"Host: a.example:{server.port}\r\n" in server.heads[0]
                answers["/up"], answers["/down"] = moved("/"), moved(f"http://a.example:{plain.port}/")
                assert await fetch.fetch(url + "up", 10**5, 5) == BODY
                url += "down"
            with pytest.raises(MediaError) as caught:
                await fetch.fetch(url, 10**5, 5)
            refused(caught.value)
            assert set(seen) == {"a.example"} and plain.requests == 0
            await fetch.aclose()

    run(main)


def test_tls_handshake_that_hangs():
    async def hang(reader, writer):
        await asyncio.sleep(60)

    async def main():
        listener = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        fetch = fetcher(port)
        with pytest.raises(MediaError, match=UNIFORM):
            await fetch.fetch(f"https://a.example:{port}/", 10, 0.2)
        await fetch.aclose()
        listener.close()

    run(main)


WILD = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda data: HEAD + data),
    st.tuples(st.integers(0, 999), st.lists(st.text(st.characters(max_codepoint=255), max_size=20), max_size=5)).map(
        lambda row: f"HTTP/1.1 {row[0]} x\r\n{chr(13).join(row[1])}\r\n\r\nbody".encode("latin-1")
    ),
    st.text(st.characters(max_codepoint=255), max_size=60).map(
        lambda to: b"HTTP/1.1 302 x\r\nLocation: " + to.encode("latin-1") + b"\r\n\r\n"
    ),
)


@settings(max_examples=150, deadline=None)
@given(WILD)
def test_any_response(response):
    result, _ = get("http://a.example:PORT/", {"/": response}, timeout=2)
    assert isinstance(result, bytes) or result.status in (413, 422)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=40), st.text("@:/\\[]%.?#0123456789abx", max_size=30)),
    st.sampled_from(["http://", "https:", "http:", ""]),
)
def test_any_url(rest, start):
    async def main():
        fetch = Fetcher(MediaLimits(), no_such_host, tls=TRUST)
        with pytest.raises(MediaError):
            await fetch.fetch(start + rest, 10, 2)
        await fetch.aclose()

    run(main)


def no_such_host(host):
    host.encode("idna")  # as getaddrinfo does, with its UnicodeErrors
    raise OSError("no such host")
