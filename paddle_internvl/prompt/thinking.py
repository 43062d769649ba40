"""Thinking: the system message that asks for thoughts, and thoughts split from answers, whole or streamed.

In: an answer `<think>thoughts</think>\\nanswer`. Out: its thoughts and the answer. Only an assistant's text that begins
with `<think>` has thoughts; the marks in a user's text are text of the user.
Source: the message is that of the InternVL3.5 cards, `R1_SYSTEM_PROMPT`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from paddle_internvl.prompt.stop_strings import partial_stop_length

THINKING_MESSAGE = """You are an AI assistant that rigorously follows this response protocol:

1. First, conduct a detailed analysis of the question. Consider different angles, potential solutions, and reason \
through the problem step-by-step. Enclose this entire thinking process within <think> and </think> tags.

2. After the thinking section, provide a clear, concise, and direct answer to the user's question. Separate the answer \
from the think section with a newline.

Ensure that the thinking process is thorough but remains focused on the query. The final answer should be standalone \
and not reference the thinking section."""
THOUGHT_MARKS = _OPEN, _CLOSE = "<think>", "</think>"


class Parts(NamedTuple):
    """Parts of an answer.

    Attributes:
        thoughts: text between `<think>` and `</think>`, or up to the end where `</think>` is missing.
        answer: text behind the thoughts.
    """

    thoughts: str
    answer: str


class _State(Enum):
    START = auto()  # before `<think>`
    THOUGHTS = auto()
    GAP = auto()  # white space behind `</think>`
    ANSWER = auto()


class ThoughtSplitter:
    """Splits an answer that comes in pieces into its thoughts and the answer. A part of a mark is held back.

    Args:
        before: beginning of the answer that is no part of the pieces.
    """

    def __init__(self, before: str = ""):
        self._state, self._held = _State.START, ""
        self.push(before)
        if self._state is _State.START and before.strip():
            self._state = _State.ANSWER
        self._held = ""

    def push(self, text: str) -> Parts:
        """The new parts, after a new piece of text."""
        thoughts, text = "", self._held + text
        if self._state is _State.START:
            begin = text.lstrip()
            if len(begin) < len(_OPEN) and _OPEN.startswith(begin):
                self._held = text
                return Parts("", "")
            opened = begin.startswith(_OPEN)
            self._state, text = (_State.THOUGHTS, begin[len(_OPEN) :]) if opened else (_State.ANSWER, text)
        if self._state is _State.THOUGHTS:
            thoughts, mark, text = text.partition(_CLOSE)
            if not mark:
                kept = len(thoughts) - partial_stop_length(thoughts, (_CLOSE,))
                self._held = thoughts[kept:]
                return Parts(thoughts[:kept], "")
            self._state = _State.GAP
        if self._state is _State.GAP:
            text = text.lstrip()
            self._state = _State.ANSWER if text else _State.GAP
        self._held = ""
        return Parts(thoughts, text)

    def finish(self) -> Parts:
        """The rest, after the last piece."""
        held, self._held = self._held, ""
        return Parts(held, "") if self._state is _State.THOUGHTS else Parts("", held)


def split_thoughts(text: str, before: str = "") -> Parts:
    """Thoughts and answer of an assistant's text.

    Args:
        text: of the assistant.
        before: beginning of the answer that is no part of `text`.
    Returns:
        Both parts; no thoughts where the answer does not begin with `<think>`.
    """
    splitter = ThoughtSplitter(before)
    new, rest = splitter.push(text), splitter.finish()
    return Parts(new.thoughts + rest.thoughts, new.answer + rest.answer)


def join_thoughts(thoughts: str | None, answer: str) -> str:
    """An assistant's text as upstream's history has it; None: without thoughts."""
    return answer if thoughts is None else f"{_OPEN}{thoughts}{_CLOSE}\n{answer}"


def thinking_system_message(system: str | None) -> str:
    """The system message of a conversation that asks for thoughts.

    Args:
        system: the conversation's own system message; None: it has none.
    Returns:
        `THINKING_MESSAGE`, or the own message if it asks for `<think>` and `</think>`.
    Raises:
        ValueError: an own message that asks for no thoughts.
    """
    if system is None:
        return THINKING_MESSAGE
    if _OPEN in system and _CLOSE in system:
        return system
    raise ValueError(
        "thinking takes the place of the system message; leave the system message out, move it into the question, "
        "or let it ask for <think> and </think> itself"
    )
