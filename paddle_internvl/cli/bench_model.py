"""Time every stage of a model beside PyTorch, OpenVINO and llama.cpp, in turn, on random weights of a published shape.

A config.json gets random weights, written once and loaded by all sides; a folder is taken as it is. Every rival that is
installed takes part (the extras `bench` and `rivals`), or those that --rivals names, each optionally with the Python
interpreter of its own environment. A ratio is to the fastest rival of the same precision: of the arithmetic, or of the
weights where tokens are decoded. A rival whose output is another one than torch's is an error.
Trials that other processes disturb are repeated, then left out, or marked with * if all were disturbed.

stages: preprocess, vision, projector, prefill, decode, answer, load, cold, conversion, or a stage's whole name

examples:
  paddle-internvl bench model                                 # InternVL2_5-1B and 2B
  paddle-internvl bench model configs/internvl2_5-4b.json --stages vision decode --rounds 5
  paddle-internvl bench model configs/internvl2_5-1b.json --rivals openvino=/opt/ov/bin/python llama.cpp
  paddle-internvl bench model HF_DIR --json run.json --plot plots
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import conventions
from paddle_internvl.cli.argument_types import integer

_CONFIGS = Path(__file__).parents[2] / "configs"
_PEAKS = ("int8", "bfloat16", "AMX int8", "AMX bfloat16")  # of `machine.peaks`, beside float32's
_DEFAULT = ("internvl2_5-1b.json", "internvl2_5-2b.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="CONFIG|CKPT", nargs="*", type=Path, help=f"(default: {' and '.join(_DEFAULT)})"
    )
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="only these; see below (default: all)")
    parser.add_argument("--rounds", type=integer(1), default=3, help="trials of each (default: 3)")
    parser.add_argument("--tries", type=integer(1), default=3, help="of a disturbed trial (default: 3)")
    parser.add_argument("--kernels", choices=("on", "off"), default="on", help="our C++ operators (default: on)")
    add_rivals(parser)
    parser.add_argument("--device", choices=("cpu", "gpu"), help="(default: a card where there is one)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work (default: the temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw plots there")


def add_rivals(parser: argparse.ArgumentParser, names: str = "torch, openvino, llama.cpp") -> None:
    """Add --rivals and --no-torch."""
    parser.add_argument(
        "--rivals", nargs="*", metavar="NAME[=PYTHON]",
        help=f"of {names}, and the interpreter that has it; none: our figures only (default: all that are installed)",
    )  # fmt: skip
    parser.add_argument("--no-torch", action="store_true", help="without torch, though it is installed")


def named_rivals(words: Sequence[str]) -> dict[str, str]:
    """Rival -> Python interpreter of NAME[=PYTHON] words; '' for this one."""
    return dict(word.partition("=")[::2] for word in words)


def interpreters(arguments: argparse.Namespace, training: bool = False) -> dict[str, str]:
    """Rival -> Python interpreter, of the options of `add_rivals`.

    Args:
        arguments: of the command line.
        training: whether a training step is timed, for which a rival needs other packages.
    Raises:
        ValueError: a rival that is named can't run.
    """
    from paddle_internvl.bench import rivals

    named = None if arguments.rivals is None else named_rivals(arguments.rivals)
    found = rivals.interpreters(named, rivals.TRAINING_PACKAGES if training else rivals.PACKAGES)
    return {name: python for name, python in found.items() if not (name == "torch" and arguments.no_torch)}


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from convert.folder import read_config
    from paddle_internvl import plotting, progress
    from paddle_internvl.bench import figures, plots
    from paddle_internvl.bench.model import bench_model, measured_machine
    from paddle_internvl.bench.stages import select

    if arguments.plot:
        plotting.require_matplotlib()
    models = arguments.models or [_CONFIGS / name for name in _DEFAULT]
    select(arguments.stages)  # a wrong call is refused before the machine's peaks are measured
    for model in models:
        read_config(model)
    found = interpreters(arguments)
    if not found and not arguments.no_torch and arguments.rivals is None:
        print('no rival is installed, so only our figures are shown: pip install -e ".[bench,rivals]"', file=sys.stderr)
    machine, documents, console = measured_machine(), [], conventions.console()
    console.print(machine_line(machine))
    for model in models:
        with tqdm(bar_format="{elapsed} {desc}", leave=False, disable=not progress.shown()) as bar:
            document = bench_model(
                model,
                machine,
                stages=arguments.stages,
                rounds=arguments.rounds,
                tries=arguments.tries,
                kernels=arguments.kernels == "on",
                interpreters=found,
                device=arguments.device,
                scratch=arguments.folder,
                on_progress=bar.set_description_str,
                on_stage=lambda document: write(arguments.json, [*documents, document]),
            )
        documents.append(document)
        console.print(f"\n{document['model']}, {document['parameters'] / 1e6:.0f} million parameters, random weights")
        console.print(figures.table(document))
        if figures.disturbed(document):
            console.print(
                f"* other processes had more than {100 * document['foreign limit']:.0f} % of the processors in every "
                f"trial; the other medians leave such trials out"
            )
        if arguments.plot:
            for file in plots.draw_model(document, arguments.plot):
                console.print(f"drawn: {file}")
    return EXIT_OK


def write(file: Path | None, documents: list[dict]) -> None:
    """Write the documents of a benchmark as JSON; None: nothing is written."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(documents, indent=1), encoding="utf-8")


def machine_line(machine: dict) -> str:
    """Processor, its peaks, and versions, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = machine["peaks"]
    limits = "peaks not measured: no C++ library"
    if peaks:
        others = [f"{name} {peaks[name] / 1e9:.0f}" for name in _PEAKS if name in peaks]
        limits = f"at most {peaks['flops'] / 1e9:.0f} GFLOP/s ({', '.join(others) or 'no dot products'}) and "
        limits += f"{peaks['bandwidth'] / 1e9:.0f} GB/s"
    sets = " ".join(machine["instruction sets"])
    return f"{machine['processor']}, {machine['cores']} cores, {sets}; {limits}; {versions}"
