"""Response objects of OpenAI's API: of a chat completion and of a text completion, whole and as a stream's chunks.

In: texts, `Response`s and log-probabilities. Out: JSON objects. The two kinds differ in a row of `Kind` fields.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paddle_internvl.engine.response import Response
from paddle_internvl.serve.logprobs import LogProbs


@dataclass(frozen=True)
class Kind:
    """Fields of the responses of one endpoint.

    Attributes:
        prefix: of ids.
        whole_object, chunk_object: `object` of a whole response and of a chunk.
        opening: of the first choice object of a stream; None: there is none.
        delta: text -> fields of the choice object of new text.
        ending: of the last choice object of a stream.
        message: text -> fields of the choice object of a whole answer.
        log_probs: (`LogProbs`, log-probabilities of the tokens, characters sent before) -> `logprobs`.
    """

    prefix: str
    whole_object: str
    chunk_object: str
    opening: dict | None
    delta: Callable[[str], dict]
    ending: dict
    message: Callable[[str], dict]
    log_probs: Callable[[LogProbs, Sequence[dict[int, float]], int], dict]


CHAT = Kind(
    prefix="chatcmpl-",
    whole_object="chat.completion",
    chunk_object="chat.completion.chunk",
    opening={"delta": {"role": "assistant", "content": ""}},
    delta=lambda text: {"delta": {"content": text}},
    ending={"delta": {}},
    message=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    log_probs=lambda log_probs, steps, sent: log_probs.chat(steps),
)
TEXT = Kind(
    prefix="cmpl-",
    whole_object="text_completion",
    chunk_object="text_completion",
    opening=None,
    delta=lambda text: {"text": text},
    ending={"text": ""},
    message=lambda text: {"text": text},
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
        choices = [
            self._choice(i, self._kind.message(response.text), response.logprobs, reason=response.finish_reason)
            for i, response in enumerate(responses)
        ]
        return {**self._head, "object": self._kind.whole_object, "choices": choices, "usage": usage}

    def chunk(self, *choices: dict, usage: dict | None = None) -> dict:
        """One chunk of a stream; the chunk with the usage has no choices."""
        body = {**self._head, "object": self._kind.chunk_object, "choices": list(choices)}
        return body if usage is None else {**body, "usage": usage}

    def opening(self, index: int) -> dict | None:
        """The first choice object of an answer's stream; None: there is none."""
        return self._choice(index, self._kind.opening) if self._kind.opening else None

    def delta(self, index: int, text: str, steps: Sequence[dict[int, float]], sent: int) -> dict:
        """The choice object of new text.

        Args:
            index: of the answer.
            text: new text.
            steps: log-probabilities of the new tokens.
            sent: characters sent before.
        """
        return self._choice(index, self._kind.delta(text), steps or None, sent)

    def ending(self, index: int, reason: str) -> dict:
        """The last choice object of an answer's stream, with the finish_reason."""
        return self._choice(index, self._kind.ending, reason=reason)

    def _choice(self, index: int, content: dict, steps=None, sent: int = 0, reason: str | None = None) -> dict:
        has_log_probs = self._log_probs is not None and steps is not None
        log_probs = self._kind.log_probs(self._log_probs, steps, sent) if has_log_probs else None
        return {"index": index, **content, "logprobs": log_probs, "finish_reason": reason}
