"""The command line's front: picks the subcommand, turns errors into one line and an exit code.

Exit codes: 0 done; 1 `doctor` found a problem, `verify` a difference, `estimate` too little memory; 2 the input or the
call is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from paddle_internvl import __version__
from paddle_internvl.cli import batch, bench, chat, demo, doctor, estimate, info, serve, verify

_COMMANDS = {
    "chat": chat,
    "demo": demo,
    "serve": serve,
    "batch": batch,
    "bench": bench,
    "info": info,
    "estimate": estimate,
    "verify": verify,
    "doctor": doctor,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of every subcommand."""
    parser = argparse.ArgumentParser(prog="paddle-internvl", description="InternVL on PaddlePaddle.")
    parser.add_argument("--version", action="version", version=f"paddle_internvl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary, _, examples = module.__doc__.partition("\n\n")
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command].run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
