"""Compare two checkpoint folders stage by stage, or one with the PyTorch reference. Exit code 1 where they differ.

SRC and DST may be raw or converted, float or quantised. Both answer the same question about the same picture; every
stage of the forward pass is compared, and the first one out of its bound is named: later stages only inherit its error.
With --torch transformers' own InternVL runs SRC, with DST's pixel tiles and prompt.

examples:
  paddle-internvl verify HF_DIR PADDLE_DIR
  paddle-internvl verify HF_DIR INT8_DIR --image photo.jpg --question "What is this?"
  paddle-internvl verify HF_DIR HF_DIR --torch
  paddle-internvl verify HF_DIR INT8_DIR --plot errors.png
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) verify CKPT CKPT --tp 2
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from math import isfinite

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli.argument_types import integer, plot_file
from paddle_internvl.cli.live_table import LiveTable

_COLUMNS = (("stage", 14), ("shape", 20), ("error", 9), ("bound", 7), ("", 12))
_IDS = ("tiles", "prompt", "tokens")  # integers: equal or not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="checkpoint folder or hub id: the reference")
    parser.add_argument("destination", metavar="DST", help="checkpoint folder or hub id to be checked")
    parser.add_argument("--torch", action="store_true", help="run SRC by transformers on torch, not by Paddle")
    parser.add_argument("--image", help="picture (default: a drawn one)")
    parser.add_argument("--question", default="Describe the image.", help="about the picture")
    parser.add_argument("--max-new-tokens", type=integer(1), default=16, help="length of the answer (default: 16)")
    parser.add_argument(
        "--tp", type=integer(1), default=1, metavar="N", help="processes that share DST; SRC is run by one"
    )
    parser.add_argument(
        "--plot", metavar="OUT", type=plot_file, help="draw the error by stage into OUT (.png, .svg, .pdf …)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.media.images import open_image

    picture = open_image(arguments.image) if arguments.image else None
    source, destination = chat_folder(arguments.source), chat_folder(arguments.destination)
    startup.import_paddle()
    from paddle_internvl.verification import plots, stages
    from paddle_internvl.verification.reference import capture_reference_stages

    picture = picture or stages.sample_picture()
    difference = stages.difference(source, destination)
    question = (picture, arguments.question, arguments.max_new_tokens)
    reports = os.environ.get("PADDLE_TRAINER_ID", "0") == "0"  # every rank computes the stages, rank 0 reports them
    # One model at a time: only its stages stay in memory.
    with LiveTable(_COLUMNS, hidden=arguments.json or not reports) as table:
        candidate = stages.capture_stages(
            destination, *question, lambda name, _: table.status(f"{arguments.destination}: {name}"),
            tensor_parallel_degree=arguments.tp,
        )  # fmt: skip
        shown = set()

        def show(name: str, stage) -> None:
            shown.add(name)
            _add_row(table, stages.compare_stage(name, stage, candidate.get(name), difference))

        table.status(f"{arguments.source}: loading")
        if arguments.torch:
            reference = capture_reference_stages(source, candidate)
        else:
            reference = stages.capture_stages(source, *question, show)
        if not reports:
            return EXIT_OK
        results = stages.compare_stages(reference, candidate, difference)
        for result in results:
            if result.stage not in shown:
                _add_row(table, result)
    if arguments.plot:
        plots.save(results, f"{arguments.destination}\nagainst {arguments.source}", arguments.plot)
    first = next((result for result in results if not result.holds), None)
    if arguments.json:
        document = {
            "difference": difference,
            # JSON has no infinity: null where two stages can't be compared
            "stages": [
                {**asdict(result), "error": result.error if isfinite(result.error) else None, "holds": result.holds}
                for result in results
            ],
            "first out of bound": first.stage if first else None,
        }
        print(json.dumps(document))
    else:
        if first:
            print(f"{first.stage} is the first stage out of its bound: {first.error:.2g} > {first.bound:.2g}")
        else:
            print(f"all {len(results)} stages are within their bounds; the folders' weights differ in: {difference}")
    return EXIT_DIFFERENT if first else EXIT_OK


def _add_row(table: LiveTable, result) -> None:
    error, bound = f"{result.error:.1e}", f"{result.bound:.0e}" if result.bound is not None else "-"
    if result.stage in _IDS:
        error, bound = "different" if result.error else "equal", "-" if result.bound is None else "equal"
    shape = " x ".join(map(str, result.shape))
    table.add_row(result.stage, shape, error, bound, "" if result.holds else "out of bound")
