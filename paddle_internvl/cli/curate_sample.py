"""Sample several answers to each question, for curate pairs.

QUESTIONS is a JSONL: question, answer (the ground truth), and image, a path or a list of paths, or video. Each question
gets a chain-of-thought prompt; OUT has a line for each answer, and an existing OUT is continued. MODEL is a checkpoint
folder or hub id, the URL of an OpenAI-compatible endpoint, or 'env' for that of $OPENAI_API_BASE.

examples:
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en_v2 --num-return-sequences 8
  paddle-internvl curate sample questions.jsonl answers.jsonl http://host:23333/v1 --prompt-version en
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en --workers 8 --ray-address auto
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.cli.curate_answering import add_answering_flags, answers_of, progress_bar
from paddle_internvl.curation.final_answers import PROMPT_VERSIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="QUESTIONS", type=Path, help="JSONL of questions, or a folder of them")
    parser.add_argument("out", metavar="OUT", type=Path, help="file of answers; an existing one is continued")
    parser.add_argument("target", metavar="MODEL", help="checkpoint folder or hub id, URL of an endpoint, or env")
    parser.add_argument(
        "--prompt-version", choices=PROMPT_VERSIONS, required=True, help="wording and format of the answer"
    )
    parser.add_argument("--num-return-sequences", type=integer(1), default=32, metavar="N",
                        help="answers of a question (default: 32)")  # fmt: skip
    add_answering_flags(parser, max_new_tokens=4096)
    parser.add_argument("--on-refusal", choices=("error", "skip"), default="error",
                        help="when an endpoint refuses a request: stop, or count it (default: error)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.curation.sampling import SamplingSettings, sample_answers

    settings = SamplingSettings(
        arguments.prompt_version, arguments.num_return_sequences, arguments.root or arguments.source.parent,
        arguments.seed, arguments.on_refusal == "skip",
    )  # fmt: skip
    with answers_of(arguments, arguments.target) as answers, progress_bar("sampled", "answer") as on_progress:
        counts = sample_answers(arguments.source, arguments.out, settings, answers, on_progress)
    if arguments.json:
        print(json.dumps(counts))
    else:
        failed = f", {counts['failed']} requests refused" if counts["failed"] else ""
        print(f"{counts['sampled']} answers sampled{failed}, {counts['answers']} in {arguments.out}")
    return EXIT_OK
