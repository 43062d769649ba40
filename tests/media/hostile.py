"""HTTP server on this machine with scripted, also invalid, responses; it records the requests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

HEAD = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(to: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {to}", status=status)


class Server:
    """A server's state.

    Attributes:
        port: on 127.0.0.1.
        heads: header block of every request.
        open: open connections.
        max_open: most open connections at a time.
        requests: number of connections so far.
    """

    def __init__(self, answers):
        self.answers, self.heads, self.open, self.max_open, self.requests = answers, [], 0, 0, 0

    async def talk(self, reader, writer):
        self.open, self.requests = self.open + 1, self.requests + 1
        self.max_open = max(self.max_open, self.open)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            path = head.split()[1].decode()
            reply = self.answers.get(path, answer(b"", status="404 Not Found"))
            if callable(reply):
                await reply(writer)
            else:
                writer.write(reply)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.heads.append("gone")
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(answers, host="127.0.0.1", port=0, tls=None):
    server = Server(answers)
    listener = await asyncio.start_server(server.talk, host, port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def drip(first: bytes, piece: bytes, pause: float = 0.02):
    """`first`, and then `piece` for ever."""

    async def talk(writer):
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk


async def silence(writer):
    await asyncio.sleep(60)
