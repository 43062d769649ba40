"""The conversation of a pipe: every line is a command or a question, stdout holds the answers alone."""

from __future__ import annotations

import sys

from convert.command_line import EXIT_OK
from paddle_internvl.cli.chat import commands
from paddle_internvl.cli.chat.session import Session
from paddle_internvl.cli.thinking import AnswerPrinter


class Pipe:
    """A conversation without a terminal.

    Args:
        session: whose model is set.
        hide_thoughts: print no thoughts.
    """

    def __init__(self, session: Session, hide_thoughts: bool):
        self.session, self._hide_thoughts = session, hide_thoughts
        self.ended = False
        self._shown = sys.stdin.isatty()  # a terminal without prompt_toolkit

    def note(self, text: str) -> None:
        """Print a note on stderr, if a person types."""
        if self._shown:
            print(text, file=sys.stderr)

    def show(self, text: str) -> None:
        """Print the result of a command on stderr."""
        print(text, file=sys.stderr)

    def ask(self, question: str) -> None:
        """Ask a question, and print the answer."""
        printer = AnswerPrinter(self._hide_thoughts)
        self.session.ask(question, printer)
        printer.end()

    def run(self) -> int:
        """Read stdin to its end; returns the exit code."""
        if self._shown:
            self.note("/help lists the commands; /exit ends")
        while not self.ended and (line := self._read()):
            text = line.strip()
            try:
                if text.startswith("/"):
                    commands.run(self, text)
                elif self._shown and text in commands.BARE:
                    commands.run(self, f"/{text}")
                elif text:
                    self.ask(text)
            except (ValueError, OSError, ImportError) as error:
                print(f"error: {error}", file=sys.stderr)  # the conversation goes on
        return EXIT_OK

    def _read(self) -> str:
        if self._shown:
            print("> ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()


def converse(session: Session, hide_thoughts: bool) -> int:
    """Answer the lines of stdin; returns the exit code."""
    return Pipe(session, hide_thoughts).run()
