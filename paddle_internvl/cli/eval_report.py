"""Write a page that shows picture, prompt, answer and verdict of every row of a run.

RUN is the folder of a model that `eval run` wrote. The page is one file that needs no network, with filters by verdict
and a search.

examples:
  paddle-internvl eval report outputs/InternVL2_5-4B MMStar --data MMStar.tsv --out mmstar.html
  paddle-internvl eval report outputs/InternVL2_5-4B DocVQA_VAL --data docvqa --out wrong.html --only wrong
"""

from __future__ import annotations

import argparse
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer

_VERDICTS = ("right", "between", "wrong", "none", "unanswered")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a model's answers and scores")
    parser.add_argument("name", metavar="NAME", help="of the benchmark")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE|DIR", help="of the benchmark")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="page to be written")
    parser.add_argument("--benchmarks", type=Path, metavar="FILE", help="YAML, JSON or Python file of more benchmarks")
    parser.add_argument("--only", choices=_VERDICTS, help="rows with this verdict (default: all)")
    parser.add_argument(
        "--side", type=integer(16), default=320, metavar="N", help="longest side of the pictures (default: 320)"
    )


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.readers import read_items
    from paddle_internvl.evaluation.report import write_report
    from paddle_internvl.evaluation.run_scores import one_run
    from paddle_internvl.evaluation.user_benchmarks import find_benchmark
    from paddle_internvl.jsonl import complete_file

    scores = one_run(arguments.run_folder)
    rules = scores.documents.get(arguments.name, {}).get("rules")
    items = read_items(find_benchmark(arguments.name, arguments.benchmarks), arguments.data, rules)
    with complete_file(arguments.out) as stream:
        counts = write_report(scores, arguments.name, items, stream, arguments.only, arguments.side)
    broken = counts.pop("broken", 0)
    print(f"{arguments.out}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}")
    if broken:
        print(f"{broken} pictures could not be opened; their rows name the reason")
    return EXIT_OK
