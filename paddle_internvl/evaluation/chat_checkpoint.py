"""Chat completions of a checkpoint in this process, with the interface of `chat_endpoint.ChatEndpoint`.

In: OpenAI-style messages. Out: a `Completion`. Requests of several threads are batched by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paddle_internvl.engine.request import ContextOverflowError
from paddle_internvl.evaluation.completion import ChatRequestError, Completion

_FIELDS = {"max_tokens": "max_new_tokens"}  # OpenAI's name -> that of the generation config


class ChatCheckpoint:
    """A pipeline as an endpoint. Thread-safe.

    Args:
        pipe: a `Pipeline`.
        model: name of the checkpoint.
    """

    def __init__(self, pipe, model: str):
        self.model = model
        self._pipe = pipe

    def complete(self, messages: Sequence[Mapping], **fields) -> Completion:
        """Complete a conversation.

        Args:
            messages: OpenAI-style.
            fields: OpenAI's `temperature`, `max_tokens`, `seed`, … or those of a generation config; None: the default.
        Raises:
            ChatRequestError: the prompt is longer than the context.
        """
        config = {_FIELDS.get(name, name): value for name, value in fields.items() if value is not None}
        config["do_sample"] = config.get("temperature", 0) > 0
        if not config["do_sample"]:
            config.pop("temperature", None)
        try:
            response = self._pipe(list(messages), config)
        except ContextOverflowError as error:
            raise ChatRequestError(str(error)) from error
        return Completion(
            response.text, response.finish_reason, response.input_token_len, response.generate_token_len
        )  # fmt: skip

    def close(self) -> None:
        """Release the model."""
        self._pipe.close()
