"""Judged verdicts: replies of a judge that are asked for until one can be parsed, with failures counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from paddle_internvl.evaluation.completion import ChatRequestError
from paddle_internvl.evaluation.judge import Judge

Parsed = TypeVar("Parsed")
TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the tries, as in VLMEvalKit


def judge_all(
    judge: Judge, conversations: Sequence[list[dict]], parsers: Sequence[Callable[[str], Parsed | None]]
) -> list[Parsed | None]:
    """Parsed replies to conversations, in their order.

    Args:
        judge: answers them.
        conversations: messages of OpenAI's form, one list a row.
        parsers: result of a reply, one function per conversation; None: the reply has no result, and the next
            temperature is tried.
    Returns:
        The result of each conversation; None where no reply had a result: a failure, which scorers count and never
        replace by a random verdict.
    Raises:
        EndpointUnavailableError: no request would get a reply.
    """

    def parsed_reply(row: tuple[list[dict], Callable[[str], Parsed | None]]) -> Parsed | None:
        messages, parse = row
        for temperature in TEMPERATURES:
            try:
                reply = judge.ask(messages, temperature)
            except ChatRequestError:  # counted by the judge
                return None
            result = parse(reply)
            if result is not None:
                return result
        return None

    return list(judge.map(parsed_reply, zip(conversations, parsers, strict=True)))
