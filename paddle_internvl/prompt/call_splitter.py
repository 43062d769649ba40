"""Tool calls split from answers, whole or streamed.

In: the text of an answer in pieces, in a `ToolFormat`. Out: its text, and its calls: the name of each, then its
arguments as they come. Only an assistant's text is split; the marks of calls in a user's text are text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from paddle_internvl.prompt.stop_strings import partial_stop_length
from paddle_internvl.prompt.tools import ToolCall, ToolFormat


class CallDelta(NamedTuple):
    """New text of a call.

    Attributes:
        index: number of the call in the answer.
        arguments: new text of its arguments.
        id, name: of the call, in its first delta; None: in later ones.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None

    @property
    def openai(self) -> dict:
        """OpenAI's object of a stream."""
        if self.name is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        return {
            "index": self.index, "id": self.id, "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }  # fmt: skip


class _State(Enum):
    TEXT = auto()
    HEAD = auto()  # between the open mark and the arguments
    ARGUMENTS = auto()
    END = auto()  # between the arguments and behind the close mark


class CallSplitter:
    """Splits an answer that comes in pieces into its text and its tool calls. A part of a mark is held back.

    Args:
        tool_format: of the calls.
        uid: beginning of the calls' ids.
    """

    def __init__(self, tool_format: ToolFormat, uid: str):
        self._format, self._uid = tool_format, uid
        self._open = "".join(tool_format.open)
        begin = re.escape(tool_format.begin("")).replace('""', '"([^"]*)"')
        self._begin = re.compile(begin)
        self._state, self._held, self._count = _State.TEXT, "", 0
        self._scanner = _ObjectScanner()

    def push(self, text: str) -> tuple[str, tuple[CallDelta, ...]]:
        """New text outside of calls, and new text of each call, after a new piece of text."""
        self._held += text
        texts: list[str] = []
        deltas: dict[int, CallDelta] = {}  # by number of the call
        while True:
            if self._state is _State.TEXT:
                before, mark, rest = self._held.partition(self._open)
                if not mark:
                    kept = len(before) - partial_stop_length(before, (self._open,))
                    kept = len(before[:kept].rstrip())
                    texts.append(before[:kept])
                    self._held = before[kept:]
                    break
                texts.append(before.rstrip())
                self._state, self._held = _State.HEAD, rest
            if self._state is _State.HEAD:
                begin = self._begin.match(self._held)
                if begin is None:
                    break
                deltas[self._count] = CallDelta(self._count, "", f"call_{self._uid}{self._count}", begin[1])
                self._state, self._held, self._scanner = _State.ARGUMENTS, self._held[begin.end() :], _ObjectScanner()
            if self._state is _State.ARGUMENTS:
                end = self._scanner.scan(self._held)
                if self._held[:end]:
                    delta = deltas.get(self._count, CallDelta(self._count, ""))
                    deltas[self._count] = delta._replace(arguments=delta.arguments + self._held[:end])
                self._held = self._held[end:]
                if not self._scanner.complete:
                    break
                self._state = _State.END
            _, mark, rest = self._held.partition(self._format.close)
            if not mark:
                break
            self._state, self._held, self._count = _State.TEXT, rest, self._count + 1
        return "".join(texts), tuple(deltas.values())

    def finish(self) -> str:
        """The rest, after the last piece: text that began like a mark; white space behind a call is no text."""
        held, self._held = self._held, ""
        is_text = self._state is _State.TEXT and not (self._count and held.isspace())
        return held if is_text else ""


class _ObjectScanner:
    """Finds the end of a JSON object that comes in pieces.

    Attributes:
        complete: whether the object has ended.
    """

    def __init__(self):
        self._depth, self._in_text, self._escaped, self.complete = 0, False, False, False

    def scan(self, text: str) -> int:
        """The number of characters of a new piece that belong to the object."""
        for i, character in enumerate(text):
            if self._in_text:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_text = False
            elif character == '"':
                self._in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth == 0:
                    self.complete = True
                    return i + 1
        return len(text)


def collect_calls(deltas: Sequence[CallDelta]) -> tuple[ToolCall, ...]:
    """The calls of an answer from all of its deltas."""
    calls: list[ToolCall] = []
    for delta in deltas:
        if delta.name is not None:
            calls.append(ToolCall(delta.id, delta.name, delta.arguments))
        else:
            last = calls.pop()
            calls.append(ToolCall(last.id, last.name, last.arguments + delta.arguments))
    return tuple(calls)


def split_calls(text: str, tool_format: ToolFormat, uid: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Text and calls of a whole answer. Arguments: see `CallSplitter`."""
    splitter = CallSplitter(tool_format, uid)
    answer, deltas = splitter.push(text)
    return answer + splitter.finish(), collect_calls(deltas)
