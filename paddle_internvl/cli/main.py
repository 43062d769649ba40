"""The command line `paddle-internvl`: the table of subcommands, their parsers, and the end of the process."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType

from convert.command_line import Parser, add_common_flags
from paddle_internvl import __version__
from paddle_internvl.cli import aliases, conventions

COMMANDS = (  # their modules lie beside this one, with underscores
    "chat", "demo", "serve", "batch", "bench", "download", "info", "estimate", "dataset", "train", "eval", "curate",
    "merge-lora", "verify", "doctor", "build-kernels", "completion",
)  # fmt: skip
_DIFFERENT = {  # command -> meaning of exit code 1
    "batch": "rows failed",
    "bench": "no request was answered, or a bound was broken",
    "estimate": "it does not fit",
    "verify": "the folders differ",
    "doctor": "something is wrong",
    "build-kernels": "there are no kernels",
}
_WITH_HUB_IDS = ("chat", "demo", "serve", "batch", "download", "info", "estimate", "dataset", "merge-lora", "verify")
_WITH_ALIASES = ("chat", "demo", "serve", "batch", "eval")
_EPILOG = """Results go to stdout, logs and progress bars to stderr; bars and colours only where that is a terminal,
and no colours if $NO_COLOR is set. --quiet and --log-level may stand before or after COMMAND."""


def build_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """The parser of subcommands.

    Args:
        names: of `COMMANDS`; only their modules are imported.
    """
    parser = Parser(
        prog="paddle-internvl",
        description="InternVL on PaddlePaddle.",
        epilog=_EPILOG,
        different="COMMAND found a problem",
    )
    parser.add_argument("--version", action="version", version=f"paddle_internvl {__version__}")
    modules = {name: _module(name) for name in names}
    commands = conventions.add_subcommands(parser, modules, "command", "COMMAND", _DIFFERENT)
    for name in _WITH_HUB_IDS:
        if name in commands:
            conventions.add_hub_flag(commands[name])
    add_common_flags(parser)
    for name, command in commands.items():
        if name in _WITH_ALIASES:
            for leaf in conventions.leaves(command):
                aliases.add_aliases(leaf)
    return parser


def _module(name: str) -> ModuleType:
    return import_module(f"paddle_internvl.cli.{name.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    names = argv[:1] if argv and argv[0] in COMMANDS else COMMANDS  # without the imports of the other subcommands
    arguments = build_parser(names).parse_args(argv)
    return conventions.run(lambda: _module(arguments.command).run(arguments), arguments)


def main_and_exit() -> None:
    """`main` as a process: it ends after its exit handlers, without the interpreter's own clean-up of thousands of
    Paddle's objects, which takes a third of a second."""
    code = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main_and_exit()
