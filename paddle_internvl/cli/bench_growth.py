"""Time and memory against tiles, prompt length, context, batch and frames, each curve held to a bound.

A config.json gets random weights in a few layers of its published width: minutes, not hours. Exit code 1 where a curve
grows faster than its bound. --rivals llama.cpp measures prefill and decode steps beside it, in 16, 8 and 4 bits.

examples:
  paddle-internvl bench growth
  paddle-internvl bench growth configs/internvl2_5-2b.json --layers 4 --curves prompt context --plot plots
  paddle-internvl bench growth configs/internvl3_5-30b-a3b.json --rivals llama.cpp=/opt/llama/bin/python
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli import conventions
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.cli.bench_model import named_rivals

_LARGEST = 8192  # positions; 32,768 take minutes
_DEFAULT = Path(__file__).parents[2] / "configs/internvl2_5-1b.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", type=Path, default=_DEFAULT, help="(default: 2.5-1B's)")
    parser.add_argument("--curves", nargs="+", metavar="CURVE", help="tiles, prompt, context, batch, frames")
    parser.add_argument("--layers", type=integer(1), default=2, help="of the vision tower and the decoder (default: 2)")
    parser.add_argument("--rounds", type=integer(1), default=3, help="of each point; the fastest counts (default: 3)")
    parser.add_argument(
        "--largest",
        type=integer(1),
        metavar="N",
        default=_LARGEST,
        help=f"leave out points above (default: {_LARGEST})",
    )
    parser.add_argument(
        "--rivals", nargs="+", metavar="NAME[=PYTHON]", default=[], help="llama.cpp, and the interpreter that has it"
    )
    parser.add_argument("--kernels", choices=("on", "off"), default="on", help="our C++ operators (default: on)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw plots there")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from paddle_internvl import plotting, progress
    from paddle_internvl.bench import growth, plots
    from paddle_internvl.bench.rivals import PACKAGES, interpreters

    if arguments.plot:
        plotting.require_matplotlib()
    rivals = interpreters(named_rivals(arguments.rivals), {"llama.cpp": PACKAGES["llama.cpp"]})
    curves = {curve.name: curve for curve in growth.CURVES}
    unknown = sorted(set(arguments.curves or ()) - curves.keys())
    if unknown:
        raise ValueError(f"there is no curve {unknown[0]!r}; curves: {', '.join(curves)}")
    with tqdm(bar_format="{elapsed} {desc}", leave=False, disable=not progress.shown()) as bar:
        document = growth.measure(
            arguments.config,
            layers=arguments.layers,
            rounds=arguments.rounds,
            curves=[curves[name] for name in arguments.curves or curves],
            largest=arguments.largest,
            interpreters=rivals,
            kernels=arguments.kernels == "on",
            on_progress=bar.set_description_str,
        )
    console = conventions.console()
    console.print(growth.table(document))
    if any(series["disturbed"] for curve in document["curves"] for series in (curve, *curve["beside"].values())):
        console.print("* other processes used the processors meanwhile: measure such a point again")
    if arguments.plot:
        for file in plots.draw_growth(document, arguments.plot):
            console.print(f"drawn: {file}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return EXIT_OK if all(curve["holds"] for curve in document["curves"]) else EXIT_DIFFERENT
