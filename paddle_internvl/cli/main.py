"""The command line's front: the table of subcommands, and their parsers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from paddle_internvl import __version__
from paddle_internvl.cli import (
    batch,
    bench,
    build_kernels,
    chat,
    completion,
    conventions,
    demo,
    doctor,
    download,
    estimate,
    info,
    serve,
    verify,
)

_COMMANDS = {
    "chat": chat,
    "demo": demo,
    "serve": serve,
    "batch": batch,
    "bench": bench,
    "download": download,
    "info": info,
    "estimate": estimate,
    "verify": verify,
    "doctor": doctor,
    "build-kernels": build_kernels,
    "completion": completion,
}
_FOUND = {  # command -> what exit code 1 says
    "batch": "rows failed",
    "bench": "no request was answered, or a bound was broken",
    "estimate": "it does not fit",
    "verify": "the folders part",
    "doctor": "something is off",
    "build-kernels": "there are no kernels",
}
_OF_HUBS = ("chat", "demo", "serve", "batch", "download", "info", "estimate", "verify")  # take hub ids
_EPILOG = f"""Results go to stdout, logs and progress bars to stderr; bars and colours only where that is a terminal,
and no colours if $NO_COLOR is set. --quiet and --log-level may stand before or after COMMAND.

{conventions.exit_codes("COMMAND found a problem")}"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of every subcommand."""
    how = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = conventions.Parser(prog="paddle-internvl", description="InternVL on PaddlePaddle.", epilog=_EPILOG, **how)
    parser.add_argument("--version", action="version", version=f"paddle_internvl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary, _, details = module.__doc__.partition("\n\n")
        epilog = f"{details.strip()}\n\n{conventions.exit_codes(_FOUND.get(name))}"
        command = commands.add_parser(name, help=summary, description=summary, epilog=epilog, **how)
        module.add_arguments(command)
        if name in _OF_HUBS:
            conventions.add_hub_flag(command)
    conventions.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    return conventions.kept(lambda: _COMMANDS[arguments.command].run(arguments), arguments)


if __name__ == "__main__":
    sys.exit(main())
