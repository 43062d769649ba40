"""Sample several answers to each question, for curate pairs.

QUESTIONS is a JSONL: question, answer (the ground truth), and image, a path or a list of paths. Each question gets
a chain-of-thought prompt; OUT has a line for each answer, and an existing OUT is continued.

examples:
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en_v2 --num-return-sequences 8
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer, number
from paddle_internvl.cli.conventions import add_adapter_flag, add_hub_flag
from paddle_internvl.curation.final_answers import PROMPT_VERSIONS

_TILES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="QUESTIONS", type=Path, help="JSONL of questions, or a folder of them")
    parser.add_argument("out", metavar="OUT", type=Path, help="file of answers; an existing one is continued")
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder or hub id")
    add_adapter_flag(parser)
    add_hub_flag(parser)
    parser.add_argument(
        "--prompt-version", choices=PROMPT_VERSIONS, required=True, help="wording and format of the answer"
    )
    parser.add_argument("--num-return-sequences", type=integer(1), default=32, metavar="N",
                        help="answers of a question (default: 32)")  # fmt: skip
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the pictures (default: QUESTIONS')")
    parser.add_argument("--temperature", type=number(0.01), default=0.7, help="(default: 0.7)")
    parser.add_argument("--top-k", type=int, default=50, help="(default: 50)")
    parser.add_argument("--top-p", type=number(0), default=1.0, help="(default: 1.0)")
    parser.add_argument("--max-new-tokens", type=integer(1), default=4096, metavar="N", help="(default: 4096)")
    parser.add_argument(
        "--max-num", type=integer(1), default=_TILES, metavar="N", help=f"tile limit (default: {_TILES})"
    )
    parser.add_argument("--batch-size", type=integer(1), default=64, metavar="N", help="answers sampled together")
    parser.add_argument("--seed", type=integer(0), default=0, help="of the sampling (default: 0)")
    parser.add_argument("--device", help="cpu or gpu (default: gpu where there is one)")
    parser.add_argument("--dtype", default="auto", help="bfloat16, float16 or float32 (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder
    from paddle_internvl.curation.sampling import SamplingSettings, sample_answers
    from paddle_internvl.progress import bar

    settings = SamplingSettings(
        arguments.prompt_version, arguments.num_return_sequences, arguments.root or arguments.source.parent,
        arguments.batch_size, arguments.seed,
    )  # fmt: skip
    folder = chat_folder(arguments.checkpoint)
    startup.import_paddle()
    from paddle_internvl.chat.pipeline import EngineConfig, pipeline
    from paddle_internvl.curation.answering import pipeline_answer

    backend = {name: getattr(arguments, name) for name in ("device", "dtype", "max_num")}
    backend["adapter"] = arguments.adapter and str(adapter_folder(arguments.adapter))
    generation = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "max_new_tokens")}
    with pipeline(str(folder), EngineConfig(**backend)) as pipe, bar("sampled", unit="answer") as progress:

        def on_progress(done: int, total: int) -> None:
            progress.total = total
            progress.n = done
            progress.refresh()

        answer = pipeline_answer(pipe, {"do_sample": True, **generation})
        counts = sample_answers(arguments.source, arguments.out, settings, answer, on_progress)
    if arguments.json:
        print(json.dumps(counts))
    else:
        print(f"{counts['sampled']} answers sampled, {counts['answers']} in {arguments.out}")
    return EXIT_OK
