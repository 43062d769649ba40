"""The conversation on a terminal: prompt, commands, answers, and what Ctrl-C means at each place.

In: a session and its model, perhaps still loading. Out: the exit code.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TextIO

from convert.command_line import EXIT_OK
from paddle_internvl.cli.chat import commands
from paddle_internvl.cli.chat.editor import Editor
from paddle_internvl.cli.chat.medium import dragged
from paddle_internvl.cli.chat.session import Session

_HINT = "/help lists the commands; Ctrl-D ends"
_STOPPED = "stopped; the part above stays in the conversation (/undo removes it, /retry asks again)"
_ONCE_MORE = "Ctrl-C once more, Ctrl-D or /exit ends the conversation"
_PLURALS = {"image": "picture", "video": "clip"}


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keys typed meanwhile don't appear within the answer; the next prompt has them."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # not on Windows

    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Terminal:
    """A conversation on a terminal: answers on stdout, everything else on stderr.

    Args:
        session: whose model is set; it may be loading.
        hide_thoughts: show no thoughts.
        debug: show tracebacks of errors.
        editor: of tests.
    """

    def __init__(self, session: Session, hide_thoughts: bool, debug: bool = False, editor: Editor | None = None):
        self.session, self._hide_thoughts, self._debug = session, hide_thoughts, debug
        self.ended = False
        self._coloured = not os.environ.get("NO_COLOR")
        # The streams are kept: Paddle's import, in its thread, puts another one in the place of sys.stderr for a while.
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._editor = editor or Editor(self._toolbar, sys.stderr, self._coloured)

    @cached_property
    def _out(self):
        return self._console(self._stdout)

    @cached_property
    def _err(self):
        return self._console(self._stderr)

    def _console(self, stream: TextIO):
        from rich.console import Console  # a seventh of the time to the first prompt

        return Console(file=stream, color_system="auto" if self._coloured else None, highlight=False)

    def note(self, text: str) -> None:
        """Show a note on stderr."""
        self.show(text, "dim")

    def show(self, text: str, style: str = "") -> None:
        """Show the result of a command on stderr, in a style of rich."""
        from rich.text import Text

        self._err.print(Text(text, style))

    def _greet(self) -> None:
        """Show the first line, without rich."""
        line = f"{self.session.model.name}: {_HINT}"
        dim = self._coloured and self._stderr.isatty()
        print(f"\x1b[2m{line}\x1b[0m" if dim else line, file=self._stderr, flush=True)

    def end(self, error: Exception) -> None:
        """End a prompt in work with an error, as when the model can't be loaded; any thread may call this."""
        self._editor.end(error)

    def when_shown(self, begin: Callable[[], None]) -> None:
        """Call a function once, as soon as the first prompt is drawn."""
        self._editor.when_drawn(begin)

    def run(self) -> int:
        """Run the conversation to its end; returns the exit code.

        Raises:
            Exception: that ended the model's loading.
        """
        self._greet()
        if not logging.getLogger("paddle_internvl").level:  # no --log-level: errors are shown as lines here
            logging.getLogger("paddle_internvl.engine").setLevel(logging.CRITICAL)
        interrupted = False
        while not self.ended:
            try:
                text = self._editor.read(self._waiting(), before=self._require_model)
            except KeyboardInterrupt:
                if interrupted and not self._editor.text:
                    return EXIT_OK
                interrupted = True
                self.note(_ONCE_MORE)
                continue
            except EOFError:
                return EXIT_OK
            interrupted = False
            self.handle(text)
        return EXIT_OK

    def handle(self, text: str) -> None:
        """Run a message: a command, dragged files, or a question. Errors and Ctrl-C leave the conversation."""
        files, bare = dragged(text), text.lower().strip() in commands.BARE
        try:
            if files:
                for kind, source in files:
                    commands.add_media(self, kind, [source])
            elif text.startswith("/") or bare:
                commands.run(self, f"/{text.strip()}" if bare else text)
            elif text.strip():
                self.ask(text)
        except KeyboardInterrupt:
            self.note("stopped")
        except Exception as error:  # whatever it is, the model is loaded and the conversation is there
            if self.session.model.error is not None:
                raise
            if self._debug:
                self.show(traceback.format_exc().rstrip())
            kind = "" if isinstance(error, (ValueError, OSError, ImportError)) else f"{type(error).__name__}: "
            self.show(f"error: {kind}{' '.join(str(error).split())}", "red")

    def ask(self, question: str) -> None:
        """Ask a question, and show the answer, its speed and its boxes."""
        from paddle_internvl.cli.chat.renderer import AnswerView

        session, before = self.session, len(self.session.messages)
        plain = not session.markdown or not self._out.is_terminal
        view = AnswerView(self._out, self._err, session.model.status, not plain, self._hide_thoughts)
        try:
            with _no_echo(), view:
                answer = session.ask(question, view)
        except KeyboardInterrupt:
            kept = len(session.messages) > before
            self.note(_STOPPED if kept else "stopped; the question is not in the conversation (Up brings it back)")
            return
        view.show_cost(answer)
        medium = session.last_picture()
        view.show_boxes(medium and medium.images[0])

    def _require_model(self) -> None:
        """Called when the prompt is there: an error of the loading that came before ends it."""
        if self.session.model.error is not None:
            self.end(self.session.model.error)

    def _waiting(self) -> str:
        """Media that wait for the next question."""
        counted = Counter(_PLURALS[medium.kind] for medium in self.session.media)
        return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counted.items())

    def _toolbar(self) -> str:
        return self.session.model.status()
