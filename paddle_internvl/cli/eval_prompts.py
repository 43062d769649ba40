"""Show the prompts of a benchmark as the model gets them: text, tiles of each picture, and limits.

Reads the checkpoint's config.json and no weights. The rules are those of VLMEvalKit (December 2024) for its TSV files,
and of upstream's scripts for their formats. $USE_COT=1 asks for reasoning, as --use-cot. A row whose picture is missing
has null for tiles; the number of such rows is on stderr.

examples:
  paddle-internvl eval prompts MMStar --data MMStar.tsv --model CKPT --style MPO
  paddle-internvl eval prompts DocVQA_VAL --data data/docvqa/val.jsonl --model CKPT --json > prompts.jsonl
  paddle-internvl eval prompts MVBench --data data/MVBench --model CKPT --nframe 16 --limit 3
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import islice
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from paddle_internvl.evaluation.benchmark import RULES, STYLES

    parser.add_argument("name", metavar="NAME", help="of the benchmark, as `eval list` names it")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE|DIR", help="of the benchmark")
    parser.add_argument("--model", metavar="CKPT", required=True, help="checkpoint folder, config.json or hub id")
    parser.add_argument(
        "--style", choices=STYLES, default="InternVL2_5",
        help="family whose prompts are sent; MPO: reasoning where the MPO cards have it; Thinking: thoughts before the "
        "answer (default: InternVL2_5)",
    )  # fmt: skip
    parser.add_argument("--rules", choices=RULES, help="toolkit (default: the one whose format the data has)")
    parser.add_argument("--use-cot", action="store_true", help="reasoning everywhere, as $USE_COT=1")
    parser.add_argument("--nframe", type=integer(1), metavar="N", help="frames of a clip (default: the benchmark's)")
    parser.add_argument("--benchmarks", type=Path, metavar="FILE", help="YAML, JSON or Python file of more benchmarks")
    parser.add_argument("--limit", type=integer(1), metavar="N", help="first rows only (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each row")


def run(arguments: argparse.Namespace) -> int:
    from convert.folder import read_config
    from convert.sizes import tile_sizes
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.evaluation.pictures import tile_counts
    from paddle_internvl.evaluation.prompts import render
    from paddle_internvl.evaluation.readers import default_rules, read_items
    from paddle_internvl.evaluation.user_benchmarks import find_benchmark

    benchmark = find_benchmark(arguments.name, arguments.benchmarks)
    config = read_config(chat_folder(arguments.model, weights=False))
    rules = arguments.rules or default_rules(benchmark, arguments.data)
    thumbnail = rules == "vlmevalkit" or config.get("use_thumbnail", False)
    reasoning = arguments.use_cot or os.environ.get("USE_COT") == "1"
    show = print_json if arguments.json else print_text
    missing = 0
    for item in islice(read_items(benchmark, arguments.data, rules), arguments.limit):
        prompt = render(item, benchmark, arguments.style, rules, reasoning, arguments.nframe)
        tiles = tile_counts(prompt, tile_sizes(config).side, thumbnail)
        missing += tiles is None
        show(prompt, tiles)
    if missing:
        print(f"{missing} rows: a picture is missing, its tiles are null", file=sys.stderr)
    return EXIT_OK


def print_json(prompt, tiles: list[int] | None) -> None:
    """A prompt as a line of JSON."""
    fields = {
        "index": prompt.index, "prompt": prompt.text, "max_num": prompt.max_num, "tiles": tiles,
        "max_new_tokens": prompt.max_new_tokens, **({} if prompt.system is None else {"system": prompt.system}),
    }  # fmt: skip
    print(json.dumps(fields, ensure_ascii=False))


def print_text(prompt, tiles: list[int] | None) -> None:
    """A prompt for people."""
    limits = f"max_num {prompt.max_num}, tiles {tiles}, max_new_tokens {prompt.max_new_tokens}"
    print(f"── {prompt.index}: {limits}\n{prompt.text}\n")
