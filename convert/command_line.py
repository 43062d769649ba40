"""Command-line conventions of `python -m convert` and `paddle-internvl`: parser, exit codes, one-line errors.

In: arguments and the work of a command. Out: an exit code. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence

EXIT_OK, EXIT_DIFFERENT, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 0, 1, 2, 130, 141
LOG_LEVELS = ("debug", "info", "warning", "error")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with one-line errors, a suggestion for a misspelt word, and examples in its help.

    Args:
        examples: command lines that the help shows.
        different: meaning of exit code 1; None: the command never returns it.
        others: as `argparse.ArgumentParser`; parsers of subcommands take the same arguments.
    """

    def __init__(self, *args, examples: Sequence[str] = (), different: str | None = None, **others):
        shown = "\n".join(["examples:", *(f"  {example}" for example in examples)]) if examples else ""
        parts = [part for part in (others.pop("epilog", None), shown, exit_codes(different)) if part]
        others.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, epilog="\n\n".join(parts), **others)

    @property
    def subcommands(self) -> dict[str, argparse.ArgumentParser]:
        """The parsers of the subcommands, by name."""
        tables = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return {name: parser for table in tables for name, parser in table.items()}

    @property
    def options(self) -> list[str]:
        """The options of this parser, e.g. '--json', aliases included."""
        return list(self._option_string_actions)

    def add_alias(self, alias: str, option: str) -> None:
        """Take another name for an option, which the help does not show; nothing if there is no such option.

        Args:
            alias: the other name; a name that is taken stays as it is.
            option: the option's own name.
        """
        if option in self._option_string_actions:
            self._option_string_actions.setdefault(alias, self._option_string_actions[option])

    def parse_args(self, args=None, namespace=None):
        """Parse; an unknown option is reported by the subcommand that does not have it, with the nearest option."""
        words = sys.argv[1:] if args is None else list(args)
        namespace, unknown = self.parse_known_args(words, namespace)
        if unknown:
            parser = self
            for word in words:
                parser = parser.subcommands.get(word, parser)
            nearest = _nearest(unknown[0].partition("=")[0], parser.options)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{nearest}")
        return namespace

    def error(self, message: str):
        """Print one line and exit with 2."""
        choice = re.search(r"invalid choice: (\S+) \(choose from (.+)\)$", message)
        if choice:
            message += _nearest(choice[1].strip("'"), [word.strip(" '") for word in choice[2].split(",")])
        self.exit(EXIT_USAGE, f"error: {' '.join(message.split())}; see {self.prog} --help\n")


def _nearest(word: str, candidates: Sequence[str]) -> str:
    """A suggestion to append to an error; '' without a near candidate."""
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.65)
    return f"; did you mean {near[0]}?" if near else ""


def exit_codes(different: str | None = None) -> str:
    """The help's line about exit codes.

    Args:
        different: meaning of exit code 1; None: it does not occur.
    """
    one = f"1 {different}, " if different else ""
    return f"exit codes: 0 done, {one}2 the input or the call is wrong, 130 interrupted"


def add_common_flags(parser: Parser) -> None:
    """Add --quiet and --log-level to a parser and its subcommands; a flag that is not given sets no attribute."""
    group = parser.add_argument_group("everywhere")
    if "--quiet" not in parser.options:
        group.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS,
                           help="no progress bars, and no log but errors")  # fmt: skip
    if "--log-level" not in parser.options:
        group.add_argument("--log-level", type=str.lower, choices=LOG_LEVELS, default=argparse.SUPPRESS,
                           help="of the log on stderr; debug shows tracebacks")  # fmt: skip
    for subcommand in parser.subcommands.values():
        add_common_flags(subcommand)


def run(
    work: Callable[[], int],
    arguments: argparse.Namespace,
    errors: tuple[type[Exception], ...],
    interrupted: str = "interrupted",
) -> int:
    """Run the work of a command: an expected error becomes one line on stderr.

    Args:
        work: returns the exit code.
        arguments: with `log_level` 'debug' the traceback precedes the line.
        errors: expected exceptions; others are faults of the program and propagate.
        interrupted: the line for Ctrl-C.
    Returns:
        The exit code.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return EXIT_INTERRUPTED
    except errors as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return EXIT_PIPE
        if getattr(arguments, "log_level", None) == "debug":
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USAGE


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout has left, as `| head` does. Then Python's flush at exit goes to /dev/null."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
