"""Options of a request's prompt: tools, and `chat_template_kwargs`: thoughts of the answer and of earlier answers.

In: JSON. Out: options of `chat.messages.parse`.
"""

from __future__ import annotations

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from paddle_internvl.prompt.tools import parse_tools
from paddle_internvl.serve.schema_types import Body


class TemplateOptions(Body):
    """Options of a prompt. enable_thinking or thinking: ask for thoughts before the answer. keep_thoughts: whether the
    prompt has the thoughts of earlier answers (the default)."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    keep_thoughts: bool | None = None

    @model_validator(mode="after")
    def _require_one_answer(self):
        if {self.enable_thinking, self.thinking} >= {True, False}:
            raise PydanticCustomError("thinking", "enable_thinking and thinking contradict each other")
        return self


class Templated(Body):
    """A request with the options of its prompt."""

    chat_template_kwargs: TemplateOptions | None = None
    tools: list[dict] | None = None
    tool_choice: str | dict | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _require_tools(self):
        try:
            parse_tools(self.tools, self.tool_choice, self.parallel_tool_calls)
        except ValueError as error:
            name = "tools" if str(error).startswith("tools") else "tool_choice"
            raise PydanticCustomError("tools", "{reason}", {"param": name, "reason": str(error)}) from None
        return self

    @property
    def prompt_options(self) -> dict:
        """The options of `chat.messages.parse`."""
        options = self.chat_template_kwargs or TemplateOptions()
        thinking = bool(options.enable_thinking or options.thinking)
        return {
            "thinking": thinking, "keep_thoughts": options.keep_thoughts is not False, "tools": self.tools,
            "tool_choice": self.tool_choice, "parallel_tool_calls": self.parallel_tool_calls,
        }  # fmt: skip
