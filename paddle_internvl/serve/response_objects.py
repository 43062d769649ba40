"""Response objects of OpenAI's API: of a chat completion and of a text completion, whole and as a stream's chunks.

In: texts, `Response`s and log-probabilities. Out: JSON objects.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from paddle_internvl.engine.response import Response
from paddle_internvl.serve.logprobs import LogProbs


class Form:
    """The fields that both kinds of response share.

    Args:
        model: name of the model.
        log_probs: formats the log-probabilities; None: the request has not asked for them.
    """

    prefix = whole_object = chunk_object = ""

    def __init__(self, model: str, log_probs: LogProbs | None):
        self.log_probs = log_probs
        self._head = {"id": self.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model}

    def whole(self, responses: Sequence[Response], usage: dict) -> dict:
        """The response that is not streamed."""
        choices = [self._choice(i, response) for i, response in enumerate(responses)]
        return {**self._head, "object": self.whole_object, "choices": choices, "usage": usage}

    def chunk(self, *choices: dict, usage: dict | None = None) -> dict:
        """One chunk of a stream; the chunk with the usage has no choices."""
        body = {**self._head, "object": self.chunk_object, "choices": list(choices)}
        return body if usage is None else {**body, "usage": usage}

    def opening(self, index: int) -> dict | None:
        """The first choice object of an answer's stream; None: there is none."""
        raise NotImplementedError

    def delta(self, index: int, text: str, steps: Sequence[dict[int, float]], sent: int) -> dict:
        """The choice object of new text.

        Args:
            index: of the answer.
            text: new text.
            steps: log-probabilities of the new tokens.
            sent: characters sent before.
        """
        raise NotImplementedError

    def ending(self, index: int, reason: str) -> dict:
        """The last choice object of an answer's stream, with the finish_reason."""
        raise NotImplementedError

    def _choice(self, index: int, response: Response) -> dict:
        raise NotImplementedError


class ChatForm(Form):
    """/v1/chat/completions."""

    prefix, whole_object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> dict:
        """See `Form`: the role."""
        return self._delta(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, text: str, steps: Sequence[dict[int, float]], sent: int) -> dict:
        """See `Form`."""
        return self._delta(index, {"content": text}, steps)

    def ending(self, index: int, reason: str) -> dict:
        """See `Form`."""
        return self._delta(index, {}, reason=reason)

    def _delta(self, index: int, delta: dict, steps=(), reason: str | None = None) -> dict:
        log_probs = self.log_probs.chat(steps) if self.log_probs and steps else None
        return {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": reason}

    def _choice(self, index: int, response: Response) -> dict:
        return {
            "index": index,
            "message": {"role": "assistant", "content": response.text, "refusal": None},
            "logprobs": self.log_probs.chat(response.logprobs) if self.log_probs else None,
            "finish_reason": response.finish_reason,
        }


class TextForm(Form):
    """/v1/completions."""

    prefix, whole_object, chunk_object = "cmpl-", "text_completion", "text_completion"

    def opening(self, index: int) -> None:
        """See `Form`."""

    def delta(self, index: int, text: str, steps: Sequence[dict[int, float]], sent: int) -> dict:
        """See `Form`."""
        log_probs = self.log_probs.text(steps, sent) if self.log_probs and steps else None
        return {"index": index, "text": text, "logprobs": log_probs, "finish_reason": None}

    def ending(self, index: int, reason: str) -> dict:
        """See `Form`."""
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}

    def _choice(self, index: int, response: Response) -> dict:
        log_probs = self.log_probs.text(response.logprobs, 0) if self.log_probs else None
        finish_reason = response.finish_reason
        return {"index": index, "text": response.text, "logprobs": log_probs, "finish_reason": finish_reason}
