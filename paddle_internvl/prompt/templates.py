"""Conversation templates: role prefixes, separators and system messages. A template is a row of a table.

In: a template's name and the turns. Out: the prompt as text, or as pieces with their writers. Source:
upstream `internvl/conversation.py`; the strings are literal, models depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER

TEMPLATE, SYSTEM, USER, ASSISTANT, PICTURE = "template", "system", "user", "assistant", "picture"  # writers


class Slot(Enum):
    """A placeholder in a turn."""

    PICTURE = IMAGE_PLACEHOLDER


class Mark(NamedTuple):
    """Text of a turn whose added tokens are all tokens, such as the marks of tool calls."""

    text: str


class Piece(NamedTuple):
    """A piece of a prompt.

    Attributes:
        text: of the piece; of a picture the `<image>` placeholder.
        writer: 'template', 'system', 'user', 'assistant' or 'picture'.
        is_markup: whether all added tokens in the text are tokens; elsewhere they are ordinary text.
    """

    text: str
    writer: str
    is_markup: bool = False


# A turn: in a user's string every `<image>` is a picture; in a sequence only a `Slot` is.
Content = str | Sequence[str | Slot | Mark]
_SYSTEM_2_0 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_SYSTEM_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
_CHATML = {
    "system_prefix": "<|im_start|>system\n",
    "roles": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
}
_TEMPLATES = {
    "Hermes-2": {**_CHATML, "sep": "<|im_end|>", "system_message": _SYSTEM_2_0},
    "internlm2-chat": {**_CHATML, "sep": "<|im_end|>", "system_message": _SYSTEM_2_0},
    "internvl2_5": {**_CHATML, "sep": "<|im_end|>\n", "system_message": _SYSTEM_2_5},
    "phi3-chat": {
        "system_prefix": "<|system|>\n",
        "roles": ("<|user|>\n", "<|assistant|>\n"),
        "sep": "<|end|>",
        "system_message": _SYSTEM_2_0,
    },
}


@dataclass
class Conversation:
    """A template and the turns so far.

    Attributes:
        name: name of the template.
        system_prefix: text before the system message.
        roles: text before a user's and before an assistant's turn.
        sep: separator after a turn.
        system_message: "" leaves the whole system turn out, unless it has tools.
        tools: description of the tools at the end of the system turn.
        messages: (role or system prefix, content); content None is the turn to be generated.
        answer_prefix: beginning of the turn to be generated, which the model continues.
    """

    name: str
    system_prefix: str
    roles: tuple[str, str]
    sep: str
    system_message: str
    tools: Sequence[str | Mark] = ()
    messages: list[tuple[str, Content | None]] = field(default_factory=list)
    answer_prefix: str = ""

    @property
    def stop(self) -> str:
        """The token that ends an answer."""
        return self.sep.strip()

    def append_message(self, role: str, message: Content | None) -> None:
        """Add a turn; message None opens the turn that is to be generated."""
        self.messages.append((role, message))

    def pieces(self) -> list[Piece]:
        """The prompt as pieces, in order. The token that ends an answer is the assistant's."""
        out: list[Piece] = []
        writers = {self.system_prefix: SYSTEM, self.roles[0]: USER, self.roles[1]: ASSISTANT}
        if self.system_message or self.tools:
            out.append(Piece(self.system_prefix, TEMPLATE, is_markup=True))
            out += _pieces([self.system_message, *self.tools], SYSTEM)
            out.append(Piece(self.sep, TEMPLATE, is_markup=True))
        for role, message in self.messages:
            out.append(Piece(role, TEMPLATE, is_markup=True))
            if message is None:
                out += [Piece(self.answer_prefix, ASSISTANT)] * bool(self.answer_prefix)
                continue
            writer = writers.get(role, USER)  # USER: tools, and what they return
            parts = _split_marks(message) if isinstance(message, str) and writer == USER else message
            out += _pieces(parts, writer)
            end = self.stop if writer == ASSISTANT else ""
            out += [Piece(end, ASSISTANT, is_markup=True)] * bool(end)
            out += [Piece(self.sep[len(end) :], TEMPLATE, is_markup=True)] * (len(self.sep) > len(end))
        return out

    def get_prompt(self) -> str:
        """The prompt as one string, as upstream renders it."""
        return "".join(piece.text for piece in self.pieces())


def _split_marks(text: str) -> list[str | Slot]:
    first, *rest = text.split(IMAGE_PLACEHOLDER)
    return [first, *(part for chunk in rest for part in (Slot.PICTURE, chunk))]


def _pieces(parts: Content, writer: str) -> list[Piece]:
    out = []
    for part in _joined(parts):
        if isinstance(part, Slot):
            out.append(Piece(part.value, PICTURE))
        else:
            out.append(Piece(part.text, writer, is_markup=True) if isinstance(part, Mark) else Piece(part, writer))
    return out


def _joined(parts: Content) -> list[str | Slot | Mark]:
    """Parts with neighbouring texts joined, since text is tokenized as a whole; empty texts are left out."""
    out: list[str | Slot | Mark] = []
    for part in [parts] if isinstance(parts, str) else parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        elif part != "":
            out.append(part)
    return out


def get_conv_template(name: str) -> Conversation:
    """A fresh conversation of the template `name` (config.json's `template`).

    Raises:
        ValueError: an unknown template; the message lists the known ones.
    """
    if name not in _TEMPLATES:
        raise ValueError(f"template={name!r} is not known; known: {', '.join(_TEMPLATES)}")
    return Conversation(name=name, **_TEMPLATES[name])
