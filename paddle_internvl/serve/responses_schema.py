"""Request schema of OpenAI's Responses API, stateless: text and pictures in, one message out.

In: JSON. Out: a `ResponsesRequest`, which is answered as the `ChatRequest` of the same conversation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from paddle_internvl.serve.schema import (
    Body,
    ChatRequest,
    Count,
    ImageUrl,
    Prompt,
    Temperature,
    Text,
    Unit,
    refuse_unsupported,
)  # fmt: skip
from paddle_internvl.serve.structured import chat_format, require_format

# fields of features that are not supported -> values that are accepted, because they ask for nothing
_UNSUPPORTED = {
    "previous_response_id": (),  # nothing is stored
    "conversation": (),
    "store": (False,),
    "background": (False,),
    "prompt": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "max_tool_calls": (),
    "include": ([],),
    "reasoning": ({},),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}


class InputText(Body):
    """Text of a message; output_text: of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: Text

    def chat(self) -> dict:
        """The part of a chat message."""
        return {"type": "text", "text": self.text}


class InputImage(Body):
    """A picture: an http(s) or data URL."""

    type: Literal["input_image"]
    image_url: Text
    detail: Literal["auto", "low", "high"] | None = None

    def chat(self) -> dict:
        """The part of a chat message."""
        return {"type": "image_url", "image_url": ImageUrl(url=self.image_url, detail=self.detail).model_dump()}


Content = Annotated[InputText | InputImage, Field(discriminator="type")]


class InputMessage(Body):
    """A message of the conversation."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Content], Field(max_length=1024, fail_fast=True)]

    def chat(self) -> dict:
        """The chat message."""
        content = self.content if isinstance(self.content, str) else [part.chat() for part in self.content]
        return {"role": self.role, "content": content}


class ResponsesRequest(Body):
    """Body of /v1/responses. Nothing is stored: a later turn sends the earlier messages again."""

    model: Text
    input: Prompt | Annotated[list[InputMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Unit | None = None
    text: dict | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body):
        return refuse_unsupported(body, _UNSUPPORTED)

    @model_validator(mode="after")
    def _require_format(self):
        require_format({"response_format": chat_format(self.text)})
        return self

    def chat(self) -> ChatRequest:
        """The chat completion that answers the request."""
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        turns = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return ChatRequest(
            model=self.model, messages=[*system, *(turn.chat() for turn in turns)], temperature=self.temperature,
            top_p=self.top_p, max_completion_tokens=self.max_output_tokens, stream=self.stream,
            response_format=chat_format(self.text),
        )  # fmt: skip
