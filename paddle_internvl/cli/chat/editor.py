"""The prompt of a conversation: line editing, history, completion, several lines (prompt_toolkit).

In: keys of a person. Out: a text that may have several lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from paddle_internvl.cli.chat import settings
from paddle_internvl.cli.chat.commands import ALIASES, COMMANDS

HISTORY_VARIABLE = "PADDLE_INTERNVL_HISTORY"  # file of typed questions; "": none
_REFRESH = 0.3  # seconds between two redraws of the toolbar, while the model loads
_QUOTES = '"""'
_PATHS = ("image", "video", "save", "load", "draw")  # commands whose argument is a file
_STYLE = Style.from_dict({"prompt": "bold ansigreen", "bottom-toolbar": "noreverse ansibrightblack"})


def history_file() -> Path | None:
    """The file of typed questions: $PADDLE_INTERNVL_HISTORY, else in $XDG_STATE_HOME; None: there is none."""
    named = os.environ.get(HISTORY_VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "paddle_internvl" / "chat_history"


def _history() -> History:
    """Earlier questions, in a file that only its owner reads; of this conversation alone where no file can be made."""
    file = history_file()
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


class CommandCompleter(Completer):
    """Completes commands, files and settings. Nothing is completed in a question."""

    def __init__(self):
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Completions at the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, blank, rest = text[1:].partition(" ")
        if not blank:
            yield from _words(name, {key: command.summary for key, command in COMMANDS.items()})
        elif (command := ALIASES.get(name, name)) in _PATHS:
            yield from self._paths.get_completions(Document(rest, len(rest)), complete_event)
        elif command == "set":
            yield from _words(rest, dict.fromkeys(settings.NAMES, ""))


def _words(begun: str, words: dict[str, str]) -> Iterable[Completion]:
    for word, summary in words.items():
        if word.startswith(begun):
            yield Completion(f"{word} ", -len(begun), display=word, display_meta=summary)


def _keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the completion is taken; the next Enter sends
        elif buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif buffer.text.lstrip().startswith(_QUOTES) and buffer.text.count(_QUOTES) == 1:
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings


class Editor:
    """Reads one message after another.

    Args:
        toolbar: text of the line below the prompt; '' for none.
        stream: a terminal that the prompt is drawn on; None: `output`'s.
        coloured: whether colours are used.
        output: of prompt_toolkit, and `input`: of tests.
    """

    def __init__(self, toolbar: Callable[[], str], stream: TextIO | None, coloured: bool,
                 output: Output | None = None, input=None):  # fmt: skip
        from prompt_toolkit.output import create_output

        self._toolbar = toolbar
        self._session = PromptSession(
            multiline=True, history=_history(), completer=CommandCompleter(), complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory(), key_bindings=_keys(), prompt_continuation="… ",
            bottom_toolbar=lambda: toolbar() or None, style=_STYLE, reserve_space_for_menu=6,
            color_depth=None if coloured else ColorDepth.DEPTH_1_BIT,
            output=output or create_output(stdout=stream), input=input,
        )  # fmt: skip

    def read(self, waiting: str = "", before: Callable[[], None] = lambda: None) -> str:
        """A message.

        Args:
            waiting: shown in front of the prompt, such as '2 pictures'.
            before: called once the prompt is there.
        Raises:
            KeyboardInterrupt: Ctrl-C.
            EOFError: Ctrl-D at an empty prompt.
        """
        message = FormattedText([("", f"[{waiting}] " if waiting else ""), ("class:prompt", "> ")])
        text = self._session.prompt(
            message, pre_run=before, refresh_interval=_REFRESH if self._toolbar() else 0
        ).strip()
        if text.startswith(_QUOTES):
            text = text.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
        return text

    def when_drawn(self, begin: Callable[[], None]) -> None:
        """Call a function once, as soon as the first prompt is drawn: imports in a thread would slow the drawing."""
        rendered = self._session.app.after_render

        def once(_app) -> None:
            rendered.remove_handler(once)
            begin()

        rendered.add_handler(once)

    @property
    def text(self) -> str:
        """What is typed so far."""
        return self._session.default_buffer.text

    def end(self, error: BaseException) -> None:
        """End a `read` in work with an error; any thread may call this."""
        app = self._session.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(lambda: app.exit(exception=error))
