"""Conventions of all subcommands: the flags that all have, log, colours, exit codes, errors of one line.

In: parsed arguments and a subcommand's work. Out: an exit code. Results go to stdout, all else to stderr. Parser and
exit codes are those of `convert.command_line`.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType, ModuleType

from convert import command_line
from convert.command_line import Parser
from paddle_internvl import progress, startup
from paddle_internvl.checkpoints.hub_clients import HUBS
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.engine.config import QUANTIZATIONS

_ERRORS = (ValueError, OSError, ImportError)  # become one line; others are faults of the program
_WIDE = 2000  # characters: wider than any line


def add_subcommands(
    parser: argparse.ArgumentParser,
    modules: Mapping[str, ModuleType],
    dest: str,
    metavar: str,
    different: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, argparse.ArgumentParser]:
    """Add subcommands, whose help is their modules' docstrings; returns their parsers by name.

    Args:
        parser: of the command.
        modules: with `add_arguments`, by name of the subcommand.
        dest: name of the parsed argument that holds the subcommand's name.
        metavar: of the subcommand, for the help.
        different: meaning of exit code 1 by name.
    """
    subparsers = parser.add_subparsers(dest=dest, required=True, metavar=metavar)
    parsers = {}
    for name, module in modules.items():
        summary, _, details = module.__doc__.partition("\n\n")
        parsers[name] = subparsers.add_parser(
            name, help=summary, description=summary, epilog=details.strip(), different=different.get(name)
        )
        module.add_arguments(parsers[name])
    return parsers


def add_hub_flag(parser: argparse.ArgumentParser) -> None:
    """Add --hub, the hub of hub ids."""
    parser.add_argument(
        "--hub", choices=list(HUBS), help="the hub of hub ids (default: $PADDLE_INTERNVL_HUB, else huggingface)"
    )


def add_adapter_flag(parser: argparse.ArgumentParser) -> None:
    """Add --adapter, a LoRA adapter for the checkpoint."""
    parser.add_argument(
        "--adapter", metavar="DIR", help="folder of a LoRA adapter (PEFT's or PaddleNLP's), merged while loading"
    )


def add_quantization_flag(parser: argparse.ArgumentParser) -> None:
    """Add --quantization, few bits for the weights while loading, with FastDeploy's words, and what belongs to it."""
    parser.add_argument(
        "--quantization",
        choices=tuple(QUANTIZATIONS),
        help="quantize the decoder's weights to 8 or 4 bits while loading",
    )
    parser.add_argument("--quantize-head", action="store_true", help="with --quantization: the output head too")
    parser.add_argument(
        "--int8-activations", action="store_true", help="CPU: prefill and vision in int8; needs quantized weights"
    )


def add_workers_flags(parser: argparse.ArgumentParser, work: str) -> None:
    """Add --workers and --ray-address, processes under Ray.

    Args:
        parser: of the command.
        work: what the processes do, for the help.
    """
    parser.add_argument("--workers", type=integer(1), metavar="N",
                        help=f"processes under Ray {work} (default: this process alone)")  # fmt: skip
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster, or auto (default: this machine alone)")


def require_workers(arguments: argparse.Namespace) -> None:
    """Refuse an address of a cluster without workers.

    Args:
        arguments: with the flags of `add_workers_flags`.
    """
    if arguments.ray_address and not arguments.workers:
        raise ValueError("--ray-address needs --workers")


def leaves(parser: Parser) -> Iterator[Parser]:
    """The parsers that have no subcommand."""
    if not parser.subcommands:
        yield parser
    for subcommand in parser.subcommands.values():
        yield from leaves(subcommand)


def run(work: Callable[[], int], arguments: argparse.Namespace) -> int:
    """Run a subcommand's work under the flags that all have; returns the exit code.

    Args:
        work: does it; returns its exit code.
        arguments: with the flags of `command_line.add_common_flags` and `add_hub_flag`.
    """
    quiet = getattr(arguments, "quiet", False)
    if quiet and not hasattr(arguments, "log_level"):
        arguments.log_level = "error"  # which `serve` takes as its own
    progress.be_quiet(quiet)
    if hasattr(arguments, "log_level"):
        startup.log_to_stderr("paddle_internvl", arguments.log_level.upper())
    else:
        logging.getLogger("paddle_internvl").setLevel(logging.NOTSET)
    if getattr(arguments, "hub", None):
        os.environ["PADDLE_INTERNVL_HUB"] = arguments.hub  # for this process and its children
    return command_line.run(work, arguments, _ERRORS)


def print_tables(tables: Iterable) -> None:
    """Print rich tables to stdout, one below the other; off a terminal without blanks at the ends of lines."""
    out = console()
    with out.capture() as captured:
        for table in tables:
            out.print(table)
    text = captured.get()
    sys.stdout.write(text if sys.stdout.isatty() else re.sub(r" +$", "", text, flags=re.M))


def console():
    """A rich console on stdout: coloured on a terminal unless $NO_COLOR is set; elsewhere plain, and lines whole."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR")
    return Console(color_system="auto" if coloured else None, width=None if terminal else _WIDE, highlight=coloured)
