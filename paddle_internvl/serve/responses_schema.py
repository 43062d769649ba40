"""Request schema of OpenAI's Responses API, stateless: a conversation in, thoughts, a message and tool calls out.

In: JSON. Out: a `ResponsesRequest`, which is answered as the `ChatRequest` of the same conversation.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from paddle_internvl.serve.responses_input import InputMessage, Item, chat_messages
from paddle_internvl.serve.schema import (
    MAX_MESSAGES,
    Body,
    ChatRequest,
    Count,
    Prompt,
    Temperature,
    Text,
    Unit,
    refuse_unsupported,
)  # fmt: skip
from paddle_internvl.serve.structured import chat_format
from paddle_internvl.serve.template_options import TemplateOptions

# fields of features that are not supported -> values that are accepted, because they ask for nothing
_UNSUPPORTED = {
    "previous_response_id": (),  # nothing is stored
    "conversation": (),
    "store": (False,),
    "background": (False,),
    "prompt": (),
    "max_tool_calls": (),
    "include": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
_FIELDS = {"messages": "input", "response_format": "text"}  # of a chat request -> of a request


class NamedTool(Body):
    """A function by its name, the choice of one."""

    type: Literal["function"]
    name: Text

    def chat(self) -> dict:
        """The object of a chat completion."""
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class FunctionTool(NamedTool):
    """A function that the answer may call."""

    description: Text | None = None
    parameters: dict | None = None
    strict: bool | None = None


class ReasoningOptions(Body):
    """Options of thoughts. effort: 'none' asks for none, all others alike for thoughts before the answer; they are
    given as they are, never as a summary."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto"] | None = None


class ResponsesRequest(Body):
    """Body of /v1/responses. Nothing is stored: a later turn sends the earlier items again."""

    model: Text
    input: Prompt | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Unit | None = None
    text: dict | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    chat_template_kwargs: TemplateOptions | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body):
        return refuse_unsupported(body, _UNSUPPORTED)

    @model_validator(mode="after")
    def _require_chat(self):
        try:
            self.chat  # noqa: B018
        except ValidationError as error:
            first = error.errors()[0]
            field = first.get("ctx", {}).get("param") or ".".join(map(str, first["loc"])) or "input"
            field = _FIELDS.get(field.partition(".")[0], field)
            raise PydanticCustomError("chat", "{reason}", {"param": field, "reason": first["msg"]}) from None
        return self

    @cached_property
    def chat(self) -> ChatRequest:
        """The chat completion that answers the request."""
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        items = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return ChatRequest(
            model=self.model, messages=[*system, *chat_messages(items)], temperature=self.temperature,
            top_p=self.top_p, max_completion_tokens=self.max_output_tokens, stream=self.stream,
            response_format=chat_format(self.text), tools=[tool.chat() for tool in self.tools or ()],
            tool_choice=self.tool_choice.chat() if isinstance(self.tool_choice, NamedTool) else self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls, chat_template_kwargs=self._template_options,
        )  # fmt: skip

    @property
    def _template_options(self) -> dict:
        """The options of the prompt; those of `reasoning` and of `chat_template_kwargs` must not contradict."""
        options = {} if self.chat_template_kwargs is None else self.chat_template_kwargs.model_dump(exclude_none=True)
        if self.reasoning is None or self.reasoning.effort is None:
            return options
        field = "thinking" if "enable_thinking" in options else "enable_thinking"
        return {**options, field: self.reasoning.effort != "none"}
