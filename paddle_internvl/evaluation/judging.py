"""Judged verdicts: replies of a judge that are asked for until one can be parsed, with failures counted."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Parsed = TypeVar("Parsed")
TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the tries, as in VLMEvalKit


class Judge(Protocol):
    """A model that answers a conversation; `evaluation.judge` has the clients.

    Attributes:
        concurrency: requests at one time.
    """

    concurrency: int

    def ask(self, messages: list[dict], temperature: float = 0.0) -> str:
        """Reply to a conversation of OpenAI's form."""


def judge_all(
    judge: Judge, conversations: Sequence[list[dict]], parse: Callable[[str], Parsed | None]
) -> list[Parsed | None]:
    """Parsed replies to conversations, in their order.

    Args:
        judge: answers them.
        conversations: messages of OpenAI's form, one list a row.
        parse: result of a reply; None: the reply has no result, and the next temperature is tried.
    Returns:
        The result of each conversation; None where no reply had a result: a failure, which scorers count and never
        replace by a random verdict.
    """

    def one(messages: list[dict]) -> Parsed | None:
        for temperature in TEMPERATURES:
            result = parse(judge.ask(messages, temperature))
            if result is not None:
                return result
        return None

    with ThreadPoolExecutor(judge.concurrency) as pool:
        return list(pool.map(one, conversations))
