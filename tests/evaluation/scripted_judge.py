"""Judges of tests: replies by a list, or by a function of prompt and temperature."""

from collections.abc import Callable, Iterable, Iterator


class ScriptedJudge:
    """Judge without a model.

    Args:
        reply: of a prompt (the last message) and a temperature.
    Attributes:
        prompts: last message of every request.
    """

    def __init__(self, reply: Callable[[str, float], str]):
        self.prompts: list[str] = []
        self._reply = reply

    def ask(self, messages: list[dict], temperature: float = 0.0) -> str:
        """The reply to a prompt."""
        self.prompts.append(messages[-1]["content"])
        return self._reply(messages[-1]["content"], temperature)

    def map(self, function: Callable, items: Iterable) -> Iterator:
        """Results of a function, one after the other."""
        return map(function, items)


def one_after_the_other(*replies: str) -> ScriptedJudge:
    """Judge that gives its replies in order, the last one forever."""
    left = list(replies)
    return ScriptedJudge(lambda _prompt, _temperature: left.pop(0) if len(left) > 1 else left[0])
