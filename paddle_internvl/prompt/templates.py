"""Conversation templates: who speaks how, and what stands between turns. A template is a row of a table.

In: a template's name and the turns. Out: the prompt as text, or as the pieces it is put together from. It knows no
tokenizer and no picture. Source: upstream `internvl/conversation.py`; the strings are literal, models depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER


class Slot(Enum):
    """What stands in a turn besides text."""

    PICTURE = IMAGE_PLACEHOLDER


Content = str | Sequence[str | Slot]  # in a string of the user's, every `<image>` is a picture; in a sequence none is
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
        name: of the template. roles: what opens the user's and the assistant's turns. sep: what ends a turn.
        system_message: "" leaves the whole system turn out.
        messages: (role, content), None for the turn to be generated.
    """

    name: str
    system_prefix: str
    roles: tuple[str, str]
    sep: str
    system_message: str
    messages: list[tuple[str, Content | None]] = field(default_factory=list)

    @property
    def stop(self) -> str:
        """The token that ends an answer."""
        return self.sep.strip()

    def append_message(self, role: str, message: Content | None) -> None:
        """Add a turn; message None opens the turn that is to be generated."""
        self.messages.append((role, message))

    def pieces(self) -> list[tuple[str, str]]:
        """The prompt as (text, source) pieces, in order; the source is 'template', 'system', 'user', 'assistant' or
        'picture'. Only pieces of the template may be read as markup."""
        out: list[tuple[str, str]] = []
        if self.system_message:
            out += [(self.system_prefix, "template"), (self.system_message, "system"), (self.sep, "template")]
        for role, message in self.messages:
            out.append((role, "template"))
            if message is not None:
                source = "user" if role == self.roles[0] else "assistant"
                parts = _split_marks(message) if isinstance(message, str) and source == "user" else message
                out += [
                    (part.value, "picture") if isinstance(part, Slot) else (part, source) for part in _joined(parts)
                ]
                out.append((self.sep, "template"))
        return out

    def get_prompt(self) -> str:
        """The prompt as one string, as upstream renders it."""
        return "".join(text for text, _ in self.pieces())


def _split_marks(text: str) -> list[str | Slot]:
    first, *rest = text.split(IMAGE_PLACEHOLDER)
    return [first, *(part for chunk in rest for part in (Slot.PICTURE, chunk))]


def _joined(parts: Content) -> list[str | Slot]:
    """Neighbouring texts as one, so that they are tokenized as the whole they are; empty ones left out."""
    out: list[str | Slot] = []
    for part in [parts] if isinstance(parts, str) else parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        elif part != "":
            out.append(part)
    return out


def get_conv_template(name: str) -> Conversation:
    """A fresh conversation of the template `name` (config.json's `template`).

    Raises:
        ValueError: no such template; names those there are.
    """
    if name not in _TEMPLATES:
        raise ValueError(f"template={name!r} is not known; known: {', '.join(_TEMPLATES)}")
    return Conversation(name=name, **_TEMPLATES[name])
