"""Time a training step beside PyTorch, in turn: SFT with a frozen tower, LoRA, and stage 1 (the projector alone).

The weights are random, of a published shape with few layers, and the same on both sides. With torch, transformers and
PEFT installed, trials of ours, torch's default and torch's fastest form are interleaved. The error is that of the loss.
Trials that other processes disturb are repeated, then left out, or marked with * if all were disturbed.

examples:
  paddle-internvl bench train
  paddle-internvl bench train configs/internvl2_5-2b.json --layers 4 --stages LoRA --json run.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import bench_model, conventions
from paddle_internvl.cli.argument_types import integer

_DEFAULT = Path(__file__).parents[2] / "configs/internvl2_5-1b.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", type=Path, default=_DEFAULT, help="(default: 1B of 2.5)")
    parser.add_argument("--layers", type=integer(1), default=2, help="of tower and decoder (default: 2)")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="only these (default: all)")
    parser.add_argument("--rounds", type=integer(1), default=3, help="trials of each (default: 3)")
    parser.add_argument("--tries", type=integer(1), default=3, help="of a disturbed trial (default: 3)")
    bench_model.add_rivals(parser, "torch")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="(default: a card where there is one)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work (default: the temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw plots there")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from paddle_internvl import plotting, progress
    from paddle_internvl.bench import figures, plots
    from paddle_internvl.bench.model import measured_machine
    from paddle_internvl.bench.training import bench_training

    if arguments.plot:
        plotting.require_matplotlib()
    torch = bench_model.interpreters(arguments, training=True).get("torch")
    if not torch and not arguments.no_torch:
        print("torch, transformers and peft are not all installed, so only our figures are shown", file=sys.stderr)
    machine, console = measured_machine(), conventions.console()
    console.print(bench_model.machine_line(machine))
    with (
        tempfile.TemporaryDirectory(prefix="paddle-internvl-bench-", dir=arguments.folder) as scratch,
        tqdm(bar_format="{elapsed} {desc}", leave=False, disable=not progress.shown()) as bar,
    ):
        document = bench_training(
            arguments.config, machine, Path(scratch), layers=arguments.layers, stages=arguments.stages,
            rounds=arguments.rounds, tries=arguments.tries, torch=torch, device=arguments.device,
            on_progress=bar.set_description_str, on_stage=lambda made: bench_model.write(arguments.json, [made]),
        )  # fmt: skip
    console.print(f"\n{document['model']}, {document['parameters'] / 1e6:.0f} million parameters, random weights")
    console.print(figures.table(document))
    if arguments.plot:
        for file in plots.draw_model(document, arguments.plot):
            print(f"drawn: {file}", file=sys.stderr)
    return EXIT_OK
