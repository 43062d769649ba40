"""Objects and events of OpenAI's Responses API.

In: the pieces of an answer. Out: a response object, or the events of a stream, numbered from 0.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from paddle_internvl.engine.response import Response
from paddle_internvl.serve.completions import CompletionRun
from paddle_internvl.serve.responses_schema import ResponsesRequest


class ResponseDocument:
    """The response object of one request.

    Args:
        request: that is answered; its settings are part of the object.
        model: name of the model.
    """

    def __init__(self, request: ResponsesRequest, model: str):
        self._message_id = f"msg_{uuid.uuid4().hex}"
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()), "model": model,
            "instructions": request.instructions, "max_output_tokens": request.max_output_tokens,
            "temperature": request.temperature or 0.0, "top_p": 1.0 if request.top_p is None else request.top_p,
            "metadata": request.metadata or {}, "parallel_tool_calls": False, "previous_response_id": None,
            "store": False, "tool_choice": "none", "tools": [],
            "text": {"format": (request.text or {}).get("format") or {"type": "text"}},
            "truncation": "disabled", "error": None,
        }  # fmt: skip

    def whole(self, responses: list[Response], usage: dict) -> dict:
        """The response object of the complete answer, as `CompletionRun.whole` asks for it."""
        (response,) = responses
        status = "incomplete" if response.finish_reason == "length" else "completed"
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        output = [self._message(status, [_text(response.text)])]
        return self._response(status, output, incomplete_details=reason, usage=_usage(usage))

    async def events(self, run: CompletionRun) -> AsyncIterator[dict]:
        """The events of a stream. The first one comes with the engine's first piece."""
        number, response = 0, None
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}

        def event(kind: str, **fields) -> dict:
            nonlocal number
            number += 1
            return {"type": f"response.{kind}", "sequence_number": number - 1, **fields}

        async with aclosing(run.pieces) as pieces:
            async for piece in pieces:
                if number == 0:
                    for kind in ("created", "in_progress"):
                        yield event(kind, response=self._response("in_progress", []))
                    yield event("output_item.added", output_index=0, item=self._message("in_progress", []))
                    yield event("content_part.added", **place, part=_text(""))
                if piece.text:
                    yield event("output_text.delta", **place, delta=piece.text, logprobs=[])
                response = piece.response or response
        document = self.whole([response], run.usage)
        (message,) = document["output"]
        yield event("output_text.done", **place, text=response.text, logprobs=[])
        yield event("content_part.done", **place, part=_text(response.text))
        yield event("output_item.done", output_index=0, item=message)
        yield event(document["status"], response=document)

    def _response(self, status: str, output: list, incomplete_details: dict | None = None, usage=None) -> dict:
        return {
            **self._head, "status": status, "output": output, "incomplete_details": incomplete_details, "usage": usage,
        }  # fmt: skip

    def _message(self, status: str, content: list) -> dict:
        return {"type": "message", "id": self._message_id, "status": status, "role": "assistant", "content": content}


def _text(text: str) -> dict:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: dict) -> dict:
    """The usage of a chat completion in the names of the Responses API."""
    return {
        "input_tokens": usage["prompt_tokens"], "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["completion_tokens"], "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }  # fmt: skip
