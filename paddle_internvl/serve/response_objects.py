"""Response objects of OpenAI's API: of a chat completion and of a text completion, whole and as a stream's chunks.

In: texts, `Response`s and log-probabilities. Out: JSON objects. The two kinds differ in a row of `Kind` fields.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paddle_internvl.engine.request import Piece
from paddle_internvl.engine.response import Response
from paddle_internvl.prompt.call_splitter import CallDelta
from paddle_internvl.serve.logprobs import LogProbs


@dataclass(frozen=True)
class Kind:
    """Fields of the responses of one endpoint.

    Attributes:
        prefix: of ids.
        whole_object, chunk_object: `object` of a whole response and of a chunk.
        opening: of the first choice object of a stream; None: there is none.
        delta: (text, thoughts, new text of tool calls) -> fields of the choice object of new text.
        ending: of the last choice object of a stream.
        message: answer -> fields of the choice object of a whole answer.
        log_probs: (`LogProbs`, log-probabilities of the tokens, characters sent before) -> `logprobs`.
    """

    prefix: str
    whole_object: str
    chunk_object: str
    opening: dict | None
    delta: Callable[[str, str | None, Sequence[CallDelta]], dict]
    ending: dict
    message: Callable[[Response], dict]
    log_probs: Callable[[LogProbs, Sequence[dict[int, float]], int], dict]


def _thoughts(reasoning: str | None) -> dict:
    return {"reasoning_content": reasoning} if reasoning else {}


def _delta(text: str, reasoning: str | None, calls: Sequence[CallDelta]) -> dict:
    content = {"content": text} if text or not (reasoning or calls) else {}
    tool_calls = {"tool_calls": [call.openai for call in calls]} if calls else {}
    return {"delta": {**_thoughts(reasoning), **content, **tool_calls}}


def _message(answer: Response) -> dict:
    calls = {"tool_calls": [call.openai for call in answer.tool_calls]} if answer.tool_calls else {}
    content = answer.text if answer.text or not calls else None
    message = {"role": "assistant", **_thoughts(answer.reasoning), "content": content, "refusal": None, **calls}
    return {"message": message}


CHAT = Kind(
    prefix="chatcmpl-",
    whole_object="chat.completion",
    chunk_object="chat.completion.chunk",
    opening={"delta": {"role": "assistant", "content": ""}},
    delta=_delta,
    ending={"delta": {}},
    message=_message,
    log_probs=lambda log_probs, steps, sent: log_probs.chat(steps),
)
TEXT = Kind(
    prefix="cmpl-",
    whole_object="text_completion",
    chunk_object="text_completion",
    opening=None,
    delta=lambda text, *_: {"text": text},
    ending={"text": ""},
    message=lambda answer: {"text": answer.text},
    log_probs=LogProbs.text,
)


class ResponseObjects:
    """The JSON objects of one response.

    Args:
        kind: `CHAT` or `TEXT`.
        model: name of the model.
        log_probs: formats the log-probabilities; None: not requested.
    """

    def __init__(self, kind: Kind, model: str, log_probs: LogProbs | None):
        self._kind, self._log_probs = kind, log_probs
        self._head = {"id": kind.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model}

    def whole(self, responses: Sequence[Response], usage: dict) -> dict:
        """The response that is not streamed."""
        messages = [self._kind.message(response) for response in responses]
        choices = [
            self._choice(i, message, response.logprobs, reason=response.finish_reason)
            for i, (message, response) in enumerate(zip(messages, responses))
        ]
        return {**self._head, "object": self._kind.whole_object, "choices": choices, "usage": usage}

    def chunk(self, *choices: dict, usage: dict | None = None) -> dict:
        """One chunk of a stream; the chunk with the usage has no choices."""
        body = {**self._head, "object": self._kind.chunk_object, "choices": list(choices)}
        return body if usage is None else {**body, "usage": usage}

    def opening(self, index: int) -> dict | None:
        """The first choice object of an answer's stream; None: there is none."""
        return self._choice(index, self._kind.opening) if self._kind.opening else None

    def delta(self, piece: Piece, steps: Sequence[dict[int, float]], sent: int) -> dict:
        """The choice object of new text.

        Args:
            piece: of the answer.
            steps: log-probabilities of the new tokens.
            sent: characters sent before.
        """
        content = self._kind.delta(piece.text, piece.reasoning, piece.calls)
        return self._choice(piece.index, content, steps or None, sent)

    def ending(self, index: int, reason: str) -> dict:
        """The last choice object of an answer's stream, with the finish_reason."""
        return self._choice(index, self._kind.ending, reason=reason)

    def _choice(self, index: int, content: dict, steps=None, sent: int = 0, reason: str | None = None) -> dict:
        has_log_probs = self._log_probs is not None and steps is not None
        log_probs = self._kind.log_probs(self._log_probs, steps, sent) if has_log_probs else None
        return {"index": index, **content, "logprobs": log_probs, "finish_reason": reason}
