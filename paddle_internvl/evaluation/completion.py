"""Chat completion of one request: the result, the errors, and the interface of endpoints and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class ChatRequestError(ValueError):
    """A request without an answer: refused, timed out or answered with something else; other requests may succeed."""


class EndpointUnavailableError(ValueError):
    """No request is answered: no connection, a wrong URL, key or model, an exhausted quota."""


@dataclass(frozen=True)
class Completion:
    """Completion of a chat request.

    Attributes:
        text: the answer.
        finish_reason: 'stop', 'length' or another of the endpoint's.
        prompt_tokens: as counted by the endpoint; 0 if it counts none.
        completion_tokens: as counted by the endpoint; 0 if it counts none.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


class Chat(Protocol):
    """A model that completes conversations: a `ChatEndpoint` or a `ChatCheckpoint`."""

    @property
    def model(self) -> str:
        """Name of the model."""

    def complete(self, messages: Sequence[Mapping], **fields) -> Completion:
        """Complete a conversation.

        Args:
            messages: OpenAI-style.
            fields: OpenAI's `temperature`, `max_tokens`, `seed` …; None: the default.
        Raises:
            ChatRequestError: this request got no answer.
            EndpointUnavailableError: no request gets an answer.
        """

    def close(self) -> None:
        """Close the connections or release the model."""
