"""ScriptedJudge: a judge that replies by a table."""

from collections.abc import Callable, Iterable, Iterator


class ScriptedJudge:
    """Judge whose replies to a prompt come one after the other, the last one forever.

    Args:
        replies: by a text that the last message contains.
    Attributes:
        prompts: last message of every request.
    """

    def __init__(self, replies: dict[str, list[str]]):
        self.prompts: list[str] = []
        self._replies = {key: list(texts) for key, texts in replies.items()}

    def ask(self, messages: list[dict], temperature: float = 0.0) -> str:
        """The next reply to a prompt."""
        prompt = messages[-1]["content"]
        self.prompts.append(prompt)
        texts = next(texts for key, texts in self._replies.items() if key in prompt)
        return texts.pop(0) if len(texts) > 1 else texts[0]

    def map(self, function: Callable, items: Iterable) -> Iterator:
        """Results of a function, one after the other."""
        return map(function, items)
