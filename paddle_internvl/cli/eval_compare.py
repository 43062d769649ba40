"""Compare two runs row by row: verdicts that differ, and McNemar's exact test.

A and B are folders of one model's score files, or single .score.json files.

examples:
  paddle-internvl eval compare outputs/InternVL2_5-4B outputs/InternVL2_5-4B-MPO
  paddle-internvl eval compare outputs/base outputs/tuned --data MMStar --flips 20
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer

_SHOWN = 200  # characters of an answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="folder of a run")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another run")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="benchmarks (default: all that both runs have)")
    parser.add_argument(
        "--flips", type=integer(0), default=0, metavar="N", help="show the answers of N rows with other verdicts"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every flip")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.compare import compare_runs, comparison_table
    from paddle_internvl.evaluation.run_scores import one_run
    from paddle_internvl.evaluation.table_formats import markdown

    first, second = one_run(arguments.first), one_run(arguments.second)
    comparisons = compare_runs(first, second, arguments.data)
    if arguments.json:
        documents = [
            {**dataclasses.asdict(one), "better": one.better, "worse": one.worse} for one in comparisons
        ]  # properties are no fields
        print(json.dumps(documents, ensure_ascii=False, indent=2))
        return EXIT_OK
    print(markdown([comparison_table(first, second, comparisons)]), end="")
    for one in comparisons:
        _show_flips(one, first, second, arguments.flips)
    return EXIT_OK


def _show_flips(comparison, first, second, count: int) -> None:
    from paddle_internvl.evaluation.run_scores import answers_of

    answers = [answers_of(run, comparison.benchmark) for run in (first, second)] if count else []
    for flip in comparison.flips[:count]:
        print(f"\n{comparison.benchmark}, row {flip.index}")
        for name, verdict, lines in zip("AB", (flip.first, flip.second), answers):
            line = lines.get(flip.index)
            answer = "its answer is not in the run's folder" if line is None else repr(line["answer"])
            print(f"  {name} {verdict:g}: {answer if len(answer) <= _SHOWN else answer[:_SHOWN] + '…'}")
