"""Thinking on the command line: flags, and thoughts printed apart from the answer.

Thoughts go to stderr, dimmed on a terminal: stdout holds the answer alone.
"""

from __future__ import annotations

import argparse
import os
import sys

from paddle_internvl.prompt.thinking import thinking_system_message

_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


def add_thinking_flags(parser: argparse.ArgumentParser) -> None:
    """Add --thinking and --drop-thoughts, thoughts of the answer and of earlier answers."""
    parser.add_argument("--thinking", action="store_true", help="ask for thoughts before the answer")
    parser.add_argument(
        "--drop-thoughts", action="store_true", help="leave the thoughts of earlier answers out of the prompt"
    )


def prompt_options(arguments: argparse.Namespace) -> dict:
    """Options of `chat.messages.parse`: system message and thoughts.

    Args:
        arguments: with --system and the flags of `add_thinking_flags`.
    Raises:
        ValueError: --thinking with a --system that asks for no thoughts.
    """
    if arguments.thinking:
        thinking_system_message(arguments.system)
    return {
        "system": arguments.system, "thinking": arguments.thinking, "keep_thoughts": not arguments.drop_thoughts,
    }  # fmt: skip


class AnswerPrinter:
    """Prints the pieces of an answer: its text to stdout, its thoughts to stderr.

    Args:
        hide_thoughts: print no thoughts.
    """

    def __init__(self, hide_thoughts: bool = False):
        self._hidden = hide_thoughts
        self._dimmed = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._in_thoughts = False

    def __call__(self, piece) -> None:
        """Print the new text of a `Response`."""
        if piece.reasoning and not self._hidden:
            self._print_thoughts(piece.reasoning)
        if piece.text:
            self._end_thoughts()
            print(piece.text, end="", flush=True)

    def end(self) -> None:
        """End the answer's last line."""
        self._end_thoughts()
        print()

    def _print_thoughts(self, text: str) -> None:
        text = text if self._in_thoughts else text.lstrip()
        self._in_thoughts = self._in_thoughts or bool(text)
        shown = f"{_DIM}{text}{_NORMAL}" if self._dimmed else text
        print(shown if text else "", end="", flush=True, file=sys.stderr)

    def _end_thoughts(self) -> None:
        if self._in_thoughts:
            print(file=sys.stderr, flush=True)
        self._in_thoughts = False
