"""One visitor's conversation: questions with attachments, and what became of them.

In: questions, pieces of answers, errors. Out: messages for the model. Knows no page, and asks no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from paddle_internvl.webdemo.uploads import Attachment


@dataclass
class Round:
    """A question and its answer.

    Attributes:
        answer: as far as it is made; None: nothing was said yet. ending: why it ended: 'stop', 'length', 'stopped' by
            the visitor, 'error'; None: it goes on. error: what went wrong. drawn: the answer's boxes over the picture,
            a data URL; drawn_on: of how many pictures that was the last.
    """

    question: str
    attachments: tuple[Attachment, ...] = ()
    answer: str | None = None
    ending: str | None = None
    error: str | None = None
    drawn: str | None = None
    drawn_on: int = 0

    def forget_answer(self) -> None:
        """As if it were asked just now."""
        self.answer = self.ending = self.error = self.drawn = None


@dataclass
class Visit:
    """What is kept of a visitor, for as long as the page is open.

    Attributes:
        rounds: the conversation. drafts: attachments of uploads not sent yet, by path and frames, so that a picture is
            read once however often it is shown. busy: whether an answer is being made.
    """

    rounds: list[Round] = field(default_factory=list)
    drafts: dict[tuple[str, int], Attachment] = field(default_factory=dict)
    busy: bool = False

    def clear(self) -> None:
        """Forget everything."""
        self.rounds.clear()
        self.drafts.clear()

    def heard(self) -> Iterator[Round]:
        """The rounds that the model knows of: those it has answered."""
        return (each for each in self.rounds if each.answer is not None and each.ending not in (None, "error"))

    def attachments(self) -> list[Attachment]:
        """Those of the rounds that the model knows of."""
        return [attachment for each in self.heard() for attachment in each.attachments]

    def messages(
        self, question: str, attachments: Sequence[Attachment], part: Callable[[Attachment], dict] = Attachment.part
    ) -> list[dict]:
        """The conversation with a question at its end, for `chat.messages`.

        Args:
            part: an attachment as a message holds it.
        """
        messages = []
        for each in self.heard():
            messages += [_asked(each.question, each.attachments, part), {"role": "assistant", "content": each.answer}]
        return [*messages, _asked(question, attachments, part)]


def _asked(question: str, attachments: Sequence[Attachment], part) -> dict:
    return {"role": "user", "content": [*map(part, attachments), {"type": "text", "text": question}]}
