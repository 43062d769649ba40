"""Make preference pairs without a ground truth: half the chosen answer, continued without the picture, is rejected.

SAMPLES is a JSONL: question (or conversations that end with one), chosen (or response), and image or video. OUT is a
preference JSONL, which train --method mpo reads; an existing OUT is continued. CKPT should be the model that wrote the
chosen answers (DropoutNTP).

examples:
  paddle-internvl curate dropout-ntp samples.jsonl pairs.jsonl CKPT
  paddle-internvl curate dropout-ntp samples.jsonl pairs.jsonl CKPT --start-ratio 0.25 --temperature 1 --root pictures
  paddle-internvl curate dropout-ntp samples.jsonl pairs.jsonl CKPT --load-image --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer, number
from paddle_internvl.cli.curate_answering import add_answering_flags, answers_of, progress_bar
from paddle_internvl.evaluation.chats import is_endpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SAMPLES", type=Path, help="JSONL of samples, or a folder of them")
    parser.add_argument("out", metavar="OUT", type=Path, help="preference JSONL; an existing one is continued")
    parser.add_argument("target", metavar="CKPT", help="checkpoint folder or hub id")
    parser.add_argument("--start-ratio", type=number(0), default=0.5, metavar="R",
                        help="share of the chosen answer's words that are kept (default: 0.5)")  # fmt: skip
    parser.add_argument("--num-return-sequences", type=integer(1), default=1, metavar="N",
                        help="pairs of a sample (default: 1)")  # fmt: skip
    parser.add_argument("--load-image", action="store_true", help="continue with the picture or clip")
    add_answering_flags(parser, max_new_tokens=2048, endpoints=False)
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.curation.dropout_ntp import DropoutSettings, continue_without_media

    if is_endpoint(arguments.target):
        raise ValueError("dropout-ntp needs a checkpoint: OpenAI's protocol can't continue an answer")
    settings = DropoutSettings(
        arguments.start_ratio, arguments.num_return_sequences, arguments.load_image,
        arguments.root or arguments.source.parent, arguments.seed,
    )  # fmt: skip
    with answers_of(arguments, arguments.target) as answers, progress_bar("pairs", "pair") as on_progress:
        counts = continue_without_media(arguments.source, arguments.out, settings, answers, on_progress)
    if arguments.json:
        print(json.dumps(counts))
    else:
        identical = f", {counts['identical']} continuations equal the chosen answer" if counts["identical"] else ""
        print(f"{counts['made']} pairs made{identical}, {counts['pairs']} in {arguments.out}")
    return EXIT_OK
