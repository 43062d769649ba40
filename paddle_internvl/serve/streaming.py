"""Server-sent events (SSE): a stream of JSON objects that ends with `[DONE]`, or with an error object.

In: an async generator of objects. Out: an HTTP response. The generator is always closed, so that the request is
cancelled when the client disconnects.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from paddle_internvl.serve.errors import ApiError


class EventStream(Response):
    """An SSE response.

    Args:
        first: the first object.
        chunks: the other objects.
        to_api_error: the error response to an exception of `chunks`.
    """

    media_type = "text/event-stream"

    def __init__(self, first: dict, chunks: AsyncGenerator[dict], to_api_error: Callable[[Exception], ApiError]):
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # nginx does not buffer
        self._first, self._chunks, self._to_api_error = first, chunks, to_api_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            content: dict | None = self._first
            while content is not None:
                await send(_event(_json(content)))
                try:
                    content = await anext(chunks, None)
                except Exception as error:
                    await send(_event(_json(self._to_api_error(error).body)))
                    break
            else:
                await send(_event("[DONE]"))
        await send({"type": "http.response.body", "body": b""})


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _event(data: str) -> dict:
    return {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
