"""Input items of OpenAI's Responses API: messages, thoughts, tool calls and their results.

In: JSON. Out: the messages of a chat completion. The thoughts, the text and the calls of one answer are items in a row,
and one message of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from paddle_internvl.prompt.tools import ToolCall
from paddle_internvl.serve.schema import MAX_PARTS, Body, Text


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
        return {"type": "image_url", "image_url": {"url": self.image_url, "detail": self.detail}}


Part = Annotated[InputText | InputImage, Field(discriminator="type")]
Content = Text | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]


def _chat_content(content: str | Sequence[InputText | InputImage]) -> str | list[dict]:
    return content if isinstance(content, str) else [part.chat() for part in content]


class InputMessage(Body):
    """A message of the conversation."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    def chat(self) -> dict:
        """The chat message."""
        return {"role": self.role, "content": _chat_content(self.content)}


class ReasoningText(Body):
    """Text of an answer's thoughts."""

    type: Literal["reasoning_text"]
    text: Text


class Reasoning(Body):
    """Thoughts of an earlier answer, in front of its text. Encrypted thoughts can't be read."""

    type: Literal["reasoning"]
    content: Annotated[list[ReasoningText], Field(max_length=MAX_PARTS)] | None = None
    encrypted_content: None = None

    def chat(self) -> dict:
        """The part of a chat message."""
        return {"role": "assistant", "reasoning_content": "".join(part.text for part in self.content or ())}


class FunctionCall(Body):
    """A tool call of an earlier answer."""

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text

    def chat(self) -> dict:
        """The part of a chat message."""
        return {"role": "assistant", "tool_calls": [ToolCall(self.call_id, self.name, self.arguments).openai]}


class FunctionCallOutput(Body):
    """The result of a tool call."""

    type: Literal["function_call_output"]
    call_id: Text
    output: Content

    def chat(self) -> dict:
        """The chat message."""
        return {"role": "tool", "tool_call_id": self.call_id, "content": _chat_content(self.output)}


def _tag(item) -> str:
    """The branch of an item; an unknown type is a message's error."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return f"[{kind}]" if kind in ("reasoning", "function_call", "function_call_output") else "[message]"


Item = Annotated[
    Annotated[InputMessage, Tag("[message]")]
    | Annotated[Reasoning, Tag("[reasoning]")]
    | Annotated[FunctionCall, Tag("[function_call]")]
    | Annotated[FunctionCallOutput, Tag("[function_call_output]")],
    Discriminator(_tag),
]


def chat_messages(items: Sequence[InputMessage | Reasoning | FunctionCall | FunctionCallOutput]) -> list[dict]:
    """The chat messages of input items."""
    messages: list[dict] = []
    for item in items:
        new, last = item.chat(), messages[-1] if messages else {"role": None}
        follows_thoughts = "content" in new and last.keys() == {"role", "reasoning_content"}
        if last["role"] == new["role"] == "assistant" and (follows_thoughts or "tool_calls" in new):
            messages[-1] = {**last, **new}
            if "tool_calls" in new:
                messages[-1]["tool_calls"] = [*last.get("tool_calls", ()), *new["tool_calls"]]
        else:
            messages.append(new)
    return messages
