"""The command line `paddle-internvl`: the table of subcommands, their parsers, and the end of the process."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

from convert.command_line import Parser, add_common_flags
from paddle_internvl import __version__
from paddle_internvl.cli import (
    aliases,
    batch,
    bench,
    build_kernels,
    chat,
    completion,
    conventions,
    curate,
    dataset,
    demo,
    doctor,
    download,
    estimate,
    eval,
    info,
    merge_lora,
    serve,
    train,
    verify,
)

COMMANDS = {
    "chat": chat,
    "demo": demo,
    "serve": serve,
    "batch": batch,
    "bench": bench,
    "download": download,
    "info": info,
    "estimate": estimate,
    "dataset": dataset,
    "train": train,
    "eval": eval,
    "curate": curate,
    "merge-lora": merge_lora,
    "verify": verify,
    "doctor": doctor,
    "build-kernels": build_kernels,
    "completion": completion,
}
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


def build_parser() -> Parser:
    """The parser of all subcommands."""
    parser = Parser(
        prog="paddle-internvl",
        description="InternVL on PaddlePaddle.",
        epilog=_EPILOG,
        different="COMMAND found a problem",
    )
    parser.add_argument("--version", action="version", version=f"paddle_internvl {__version__}")
    commands = conventions.add_subcommands(parser, COMMANDS, "command", "COMMAND", _DIFFERENT)
    for name in _WITH_HUB_IDS:
        conventions.add_hub_flag(commands[name])
    add_common_flags(parser)
    for name in _WITH_ALIASES:
        for leaf in conventions.leaves(commands[name]):
            aliases.add_aliases(leaf)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    return conventions.run(lambda: COMMANDS[arguments.command].run(arguments), arguments)


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
