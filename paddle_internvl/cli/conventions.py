"""How every subcommand behaves: flags that all have, one-line errors, exit codes, what may be coloured.

In: a parser, parsed arguments, a subcommand's work. Out: an exit code. Results go to stdout, all else to stderr. It
knows no subcommand.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator

from paddle_internvl import progress

LOG_LEVELS = ("debug", "info", "warning", "error")
HUBS = ("huggingface", "modelscope", "aistudio")
DONE, FOUND, WRONG, INTERRUPTED, LEFT = 0, 1, 2, 130, 141
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_OURS = "paddle_internvl"
_WIDE = 2000  # characters: wider than any line


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line."""

    def error(self, message: str):
        """Say what is wrong with the call, and end."""
        self.exit(WRONG, f"error: {message}; see {self.prog} --help\n")


def exit_codes(found: str | None = None) -> str:
    """The line of a help about exit codes. found: what 1 says; None: it does not occur."""
    one = f"1 {found}, " if found else ""
    return f"exit codes: 0 done, {one}2 the input or the call is wrong, 130 interrupted"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that all subcommands have, here and below; those not given leave no trace in the parsed arguments."""
    group = parser.add_argument_group("everywhere")
    known = parser._option_string_actions  # argparse has no public way to ask
    if "--quiet" not in known:
        how = {"action": "store_true", "default": argparse.SUPPRESS}
        group.add_argument("--quiet", help="no progress bars, and no log but errors", **how)
    if "--log-level" not in known:
        how = {"choices": LOG_LEVELS, "default": argparse.SUPPRESS}
        group.add_argument("--log-level", help="of the log on stderr; debug shows tracebacks", **how)
    for below in subparsers(parser).values():
        add_flags(below)


def add_hub_flag(parser: argparse.ArgumentParser) -> None:
    """Where hub ids are looked up."""
    parser.add_argument(
        "--hub", choices=HUBS, help="that hub ids are looked up on (default: $PADDLE_INTERNVL_HUB, else huggingface)"
    )


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's subcommands, by name."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that have no subcommand."""
    below = subparsers(parser)
    if not below:
        yield parser
    for each in below.values():
        yield from leaves(each)


def follow(arguments: argparse.Namespace) -> None:
    """Do what the flags say that every subcommand has."""
    quiet = getattr(arguments, "quiet", False)
    if quiet and not hasattr(arguments, "log_level"):
        arguments.log_level = "error"  # which `serve` reads as its own
    progress.be_quiet(quiet)
    log_to_stderr(getattr(arguments, "log_level", None))
    if getattr(arguments, "hub", None):
        os.environ["PADDLE_INTERNVL_HUB"] = arguments.hub  # for this process and those it starts


def log_to_stderr(level: str | None) -> None:
    """Write our log from a level on; PaddleNLP's follows it (`startup.import_paddle`)."""
    logger = logging.getLogger(_OURS)
    logger.setLevel(logging.NOTSET if level is None else level.upper())
    if level is not None:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.handlers, logger.propagate = [handler], False


def console():
    """A rich console on stdout: coloured on a terminal unless $NO_COLOR is set; elsewhere plain, and lines whole."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR")
    return Console(color_system="auto" if coloured else None, width=None if terminal else _WIDE, highlight=coloured)


def kept(work: Callable[[], int], arguments: argparse.Namespace) -> int:
    """The exit code of a subcommand's work; its errors become a line on stderr, with the traceback before it if the
    log level is debug. A fault of the program itself is not caught."""
    try:
        follow(arguments)
        code = work()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return LEFT
        if getattr(arguments, "log_level", None) == "debug":
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG


def _reader_left() -> bool:
    """Whether nobody reads stdout any more, as behind `| head`. Then Python's own flush at the end is kept quiet."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    left = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left
