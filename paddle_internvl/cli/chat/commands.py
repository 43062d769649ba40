"""The commands of a conversation, in one table: name, arguments, summary, and the function that runs it.

In: a typed line. Out: a changed `Session`, and notes for the person who types.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from paddle_internvl.cli.chat import settings
from paddle_internvl.cli.chat.medium import sources
from paddle_internvl.cli.chat.session import Session, media_of, text_of


class Chat(Protocol):
    """What a command acts on: the conversation, and the place where it is shown.

    Attributes:
        session: the conversation.
        ended: whether a command has ended the conversation.
    """

    session: Session
    ended: bool

    def note(self, text: str) -> None:
        """Confirm a command to the person who types; no one needs it in a pipe."""

    def show(self, text: str) -> None:
        """Show the result of a command."""

    def ask(self, question: str) -> None:
        """Ask a question, and show the answer."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        usage: its arguments, for the help.
        summary: what it does.
        run: called with the chat and the text behind the name.
    """

    usage: str
    summary: str
    run: Callable[[Chat, str], None]


def add_media(chat: Chat, kind: str, names: list[str]) -> None:
    """Add pictures or clips to the next question.

    Args:
        chat: whose question it is.
        kind: 'image' or 'video'.
        names: paths or URLs.
    """
    if not names:
        raise ValueError(f"name a file: /{kind} FILE")
    for name in names:
        medium = chat.session.add(kind, name)
        cost = chat.session.model.cost(medium, chat.session.options)
        chat.note(" · ".join(filter(None, (Path(name).name, medium.size, cost, "for the next question"))))


def _add(kind: str, chat: Chat, text: str) -> None:
    add_media(chat, kind, sources(text))


def _help(chat: Chat, _text: str) -> None:
    names = [f"/{name} {command.usage}".rstrip() for name, command in COMMANDS.items()]
    width = max(map(len, names))
    for name, command in zip(names, COMMANDS.values()):
        chat.show(f"{name:{width}}  {command.summary}")
    chat.show(KEYS)


def _reset(chat: Chat, _text: str) -> None:
    chat.session.reset()
    chat.note("a new conversation")


def _undo(chat: Chat, _text: str) -> None:
    question = chat.session.undo()
    chat.note("there is no question to remove" if question is None else f"removed: {text_of(question)}")


def _retry(chat: Chat, _text: str) -> None:
    session = chat.session
    before, waiting = [*session.messages], session.media
    question = session.undo()
    if question is None:
        raise ValueError("there is no question to ask again")
    session.media = media_of(question)
    try:
        chat.ask(text_of(question))
    finally:
        if len(session.messages) < len(before):  # no answer came
            session.messages = before
        session.media = waiting


def _system(chat: Chat, text: str) -> None:
    if not text:
        system = chat.session.options.get("system")
        chat.show("the checkpoint's own system message" if system is None else f"system message: {system!r}")
        return
    chat.session.options["system"] = "" if text in ('""', "''") else text
    chat.note("the system message of all of the conversation is another from now on")


def _set(chat: Chat, text: str) -> None:
    name, _, value = text.replace("=", " ", 1).partition(" ")
    if name and not value.strip():
        raise ValueError(f"give a value: /set {name} VALUE")
    if name:
        settings.change(chat.session, name, value.strip())
        chat.note(f"{name}={value.strip()}")
        return
    chat.show("  ".join(f"{key}={_shown(item)}" for key, item in settings.values(chat.session).items()))


def _shown(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "default" if value is None else str(value)


def _save(chat: Chat, text: str) -> None:
    file = _file(text, "save")
    chat.session.save(file)
    chat.note(f"{len(chat.session.messages)} messages saved in {file}")


def _load(chat: Chat, text: str) -> None:
    file = _file(text, "load")
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    chat.session.load(file)
    chat.note(f"{len(chat.session.messages)} messages loaded from {file}")


def _draw(chat: Chat, text: str) -> None:
    from paddle_internvl.cli.argument_types import picture_file
    from paddle_internvl.cli.chat.boxes import require_boxes

    target = picture_file(str(_file(text, "draw")))
    medium = chat.session.last_picture()
    if medium is None:
        raise ValueError("boxes are drawn into the picture of the last question with one picture; there is none")
    require_boxes(medium.images[0], text_of(chat.session.messages[-1])).save(target)
    chat.note(f"boxes drawn into {target}")


def _file(text: str, command: str) -> Path:
    names = sources(text)
    if len(names) != 1:
        raise ValueError(f"name one file: /{command} FILE")
    return Path(names[0])


def _tokens(chat: Chat, _text: str) -> None:
    session = chat.session
    question = {"role": "user", "content": [*session.media, {"type": "text", "text": ""}]}
    chat.show(session.model.count([*session.messages, question], session.options))


def _exit(chat: Chat, _text: str) -> None:
    chat.ended = True


COMMANDS = {
    "image": Command("FILE", "adds a picture to the next question", partial(_add, "image")),
    "video": Command("FILE", "adds a clip", partial(_add, "video")),
    "retry": Command("", "asks the last question again", _retry),
    "undo": Command("", "removes the last question and its answer", _undo),
    "reset": Command("", "begins a new conversation (also: /clear)", _reset),
    "system": Command("[TEXT]", "shows or changes the system message; '' is none", _system),
    "set": Command("[NAME VALUE]", "shows or changes a setting of the answers", _set),
    "tokens": Command("", "counts the tokens of the conversation", _tokens),
    "draw": Command("FILE", "writes the picture with the boxes of the last answer", _draw),
    "save": Command("FILE", "writes the conversation as JSON", _save),
    "load": Command("FILE", "goes on with a saved conversation", _load),
    "help": Command("", "shows this list", _help),
    "exit": Command("", "ends (also: /quit, Ctrl-D)", _exit),
}
ALIASES = {"quit": "exit", "bye": "exit", "end": "exit", "clear": "reset", "new": "reset", "?": "help"}
BARE = ("exit", "quit", "bye", "clear", "help", "?")  # commands and aliases that need no slash
KEYS = (
    'keys: Enter sends, Alt+Enter or a \\ at the end of a line begins a new line, """ opens and ends several lines, '
    "Tab completes, Ctrl-R searches, Ctrl-C stops an answer"
)


def run(chat: Chat, line: str) -> None:
    """Run a line that begins with a slash.

    Raises:
        ValueError: no such command, or arguments that can't be.
    """
    name, _, text = line[1:].partition(" ")
    name = ALIASES.get(name.lower(), name.lower())
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
        raise ValueError(f"/{name} is no command; " + (f"did you mean /{near[0]}?" if near else "/help lists them"))
    COMMANDS[name].run(chat, text.strip())
