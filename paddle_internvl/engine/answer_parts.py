"""Parts of an answer: thoughts, text and tool calls, streamed and whole.

In: the text of an answer, in pieces. Out: `AnswerParts`. All of it is text where the prompt asks for neither thoughts
nor tool calls.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import uuid4

from paddle_internvl.prompt.call_splitter import CallDelta, CallSplitter, split_calls
from paddle_internvl.prompt.thinking import Parts, ThoughtSplitter, split_thoughts
from paddle_internvl.prompt.tools import ToolCall, ToolFormat


class NewParts(NamedTuple):
    """New text of an answer.

    Attributes:
        thoughts: new text of the thoughts.
        text: new text outside of thoughts and calls.
        calls: new text of tool calls.
    """

    thoughts: str
    text: str
    calls: tuple[CallDelta, ...]


class AnswerParts(NamedTuple):
    """Parts of an answer. Attributes: see `Response`."""

    reasoning: str | None
    text: str
    tool_calls: tuple[ToolCall, ...]


class AnswerSplitter:
    """Splits one answer into its parts.

    Args:
        before: beginning of the answer that is part of the prompt; None: thoughts are not split.
        tool_format: of tool calls; None: calls are not split.
    """

    def __init__(self, before: str | None, tool_format: ToolFormat | None):
        self._before, self._format, self._uid = before, tool_format, uuid4().hex[:24]
        self._thoughts = None if before is None else ThoughtSplitter(before)
        self._calls = None if tool_format is None else CallSplitter(tool_format, self._uid)

    def push(self, text: str, ended: bool) -> NewParts:
        """The new parts, after a new piece of text; ended: the last one."""
        parts, calls = Parts("", text), ()
        if self._thoughts is not None:
            parts = self._thoughts.push(text)
            rest = self._thoughts.finish() if ended else Parts("", "")
            parts = Parts(parts.thoughts + rest.thoughts, parts.answer + rest.answer)
        answer = parts.answer
        if self._calls is not None:
            answer, calls = self._calls.push(answer)
            answer += self._calls.finish() if ended else ""
        return NewParts(parts.thoughts, answer, calls)

    def whole(self, text: str) -> AnswerParts:
        """The parts of a whole answer."""
        thoughts, answer, calls = "", text, ()
        if self._before is not None:
            thoughts, answer = split_thoughts(text, self._before)
        if self._format is not None:
            answer, calls = split_calls(answer, self._format, self._uid)
        return AnswerParts(thoughts or None, answer, calls)
