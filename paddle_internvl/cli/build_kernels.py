"""Build the C++ operators for this machine's CPU, which are otherwise built on first use.

The library is kept in ~/.cache/paddle_internvl (or PADDLE_INTERNVL_CACHE) for each version of sources, compiler and
Paddle. Needs a C++ compiler (g++ 9 or later, or $CXX). Without these operators everything works, more slowly.

examples:
  paddle-internvl build-kernels
  paddle-internvl build-kernels --force
"""

from __future__ import annotations

import argparse
import json

from convert.command_line import EXIT_DIFFERENT, EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="build anew, also after a build that failed")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup

    startup.import_paddle()
    from paddle_internvl.kernels import building, library

    reason, path = "", None
    try:
        path = building.library(force=arguments.force)
        reason = library.unavailable_reason()
    except building.BuildError as error:
        reason = str(error)
    isa = "" if reason else library.isa()
    if arguments.json:
        print(json.dumps({"library": str(path) if path else None, "isa": isa, "reason": reason}))
    else:
        print(f"no kernels: {reason}" if reason else f"{path}: {isa}")
    return EXIT_DIFFERENT if reason else EXIT_OK
