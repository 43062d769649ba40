"""Session state of one visitor: the conversation so far, and uploads that wait to be sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paddle_internvl.webdemo.attention import AttentionOverlay
from paddle_internvl.webdemo.uploads import Attachment


@dataclass
class AnswerTiming:
    """Tokens of an answer and when they came.

    Attributes:
        tokens: generated so far.
        first: seconds from the question to the first token; None: none yet.
        last: seconds from the question to the last token so far.
    """

    tokens: int = 0
    first: float | None = None
    last: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Count tokens that came `seconds` after the question."""
        if tokens:
            self.tokens += tokens
            self.first = seconds if self.first is None else self.first
            self.last = seconds

    @property
    def per_second(self) -> float | None:
        """Tokens a second behind the first one; None: there are too few."""
        return (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 and self.last > self.first else None


@dataclass
class Round:
    """A question and its answer.

    Attributes:
        question: text.
        attachments: pictures and clips of the question.
        answer: text generated so far; None: nothing yet.
        ending: 'stop', 'length', 'stopped' (by the visitor) or 'error'; None: the answer is being generated.
        error: message of the error.
        drawn: data URL of a picture with the answer's boxes.
        drawn_on: number of pictures of the question; the boxes are drawn on the last one.
        thoughts: text of the thoughts so far; None: none yet, or not requested.
        timing: of the answer.
        token_ids: generated so far; a server names none, and each is None.
        options: of the visitor when the question was asked: `GenerationOptions`.
        adapter: that answers, see `SessionState`.
        overlays: of the answer's attention to the pictures; (): not asked for.
    """

    question: str
    attachments: tuple[Attachment, ...] = ()
    answer: str | None = None
    ending: str | None = None
    error: str | None = None
    drawn: str | None = None
    drawn_on: int = 0
    thoughts: str | None = None
    timing: AnswerTiming = field(default_factory=AnswerTiming)
    token_ids: list[int | None] = field(default_factory=list)
    options: object | None = None
    adapter: str = ""
    overlays: Sequence[AttentionOverlay] = ()

    def reset_answer(self) -> None:
        """Remove the answer, so that the question can be answered again."""
        self.answer = self.thoughts = self.ending = self.error = self.drawn = None
        self.timing, self.token_ids, self.overlays = AnswerTiming(), [], ()


@dataclass
class SessionState:
    """State of a visitor's page, for as long as it is open.

    Attributes:
        rounds: the conversation.
        drafts: (path, frames) -> attachment of uploads that are not sent yet, so that a file is decoded once.
        busy: whether an answer is being generated.
        sent: the question that waits for its answer to begin; None: none does.
        adapter: name of the LoRA adapter that answers; "": the model without one.
    """

    rounds: list[Round] = field(default_factory=list)
    drafts: dict[tuple[str, int], Attachment] = field(default_factory=dict)
    busy: bool = False
    sent: Round | None = None
    adapter: str = ""

    def clear(self) -> None:
        """Remove the conversation and the drafts."""
        self.rounds.clear()
        self.drafts.clear()
        self.sent = None

    def transcript(self) -> list[Round]:
        """The rounds that are part of the next prompt: those with a finished answer."""
        return [each for each in self.rounds if each.answer is not None and each.ending not in (None, "error")]

    @property
    def last_speed(self) -> float | None:
        """Tokens a second of the last answer that has enough of them."""
        speeds = [each.timing.per_second for each in self.rounds if each.timing.per_second is not None]
        return speeds[-1] if speeds else None

    def before(self, round_: Round) -> SessionState:
        """The state in which a round was asked, as far as its prompt goes."""
        numbers = (number for number, each in enumerate(self.rounds) if each is round_)
        return SessionState(self.rounds[: next(numbers)], adapter=round_.adapter)

    def attachments(self) -> list[Attachment]:
        """The attachments of the transcript."""
        return [attachment for each in self.transcript() for attachment in each.attachments]

    def messages(
        self, question: str, attachments: Sequence[Attachment], to_part: Callable[[Attachment], dict] = Attachment.part
    ) -> list[dict]:
        """The transcript and a new question, as messages for `chat.messages`.

        Args:
            question: text.
            attachments: of the question.
            to_part: makes the message part of an attachment.
        """
        messages = []
        for each in self.transcript():
            messages.append(_user_message(each.question, each.attachments, to_part))
            messages.append({"role": "assistant", "content": each.answer, "reasoning_content": each.thoughts})
        return [*messages, _user_message(question, attachments, to_part)]


def _user_message(question: str, attachments: Sequence[Attachment], to_part) -> dict:
    return {"role": "user", "content": [*map(to_part, attachments), {"type": "text", "text": question}]}
