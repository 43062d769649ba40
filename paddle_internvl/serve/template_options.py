"""`chat_template_kwargs` of requests: thoughts before the answer, and those of earlier answers.

In: JSON. Out: options of `chat.messages.parse`.
"""

from __future__ import annotations

from pydantic import model_validator
from pydantic_core import PydanticCustomError

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

    @property
    def prompt_options(self) -> dict:
        """The options of `chat.messages.parse`."""
        options = self.chat_template_kwargs or TemplateOptions()
        thinking = bool(options.enable_thinking or options.thinking)
        return {"thinking": thinking, "keep_thoughts": options.keep_thoughts is not False}
