"""Score answers to a benchmark, of this or any other toolkit.

ANSWERS is a .json ({index: answer}), .jsonl, .csv, .tsv or VLMEvalKit's own .xlsx. The rules are VLMEvalKit's of
December 2024 (the tree of the MPO cards) with text kept: "None" and "NA" are answers, only an empty cell is missing; or
those of upstream's scripts. A headline figure is given where every row has an answer.

examples:
  paddle-internvl eval score MMStar --data MMStar.tsv --answers outputs/model/model_MMStar.xlsx
  paddle-internvl eval score DocVQA_VAL --data val.jsonl --answers answers.json --rules internvl --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.judge_flags import add_judge_flags, judge_of
from paddle_internvl.evaluation.benchmark import RULES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the benchmark, as VLMEvalKit's")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE|DIR", help="of the benchmark")
    parser.add_argument("--answers", type=Path, required=True, metavar="FILE", help="of the model")
    parser.add_argument("--rules", choices=RULES, help="(default: of the toolkit whose format the data has)")
    parser.add_argument("--benchmarks", type=Path, metavar="FILE", help="YAML, JSON or Python file of more benchmarks")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the JSON document (default: none is written)")
    parser.add_argument("--json", action="store_true", help="print the JSON document, with a verdict on every row")
    add_judge_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.scoring import score
    from paddle_internvl.evaluation.user_benchmarks import find_benchmark
    from paddle_internvl.jsonl import complete_file

    benchmark = find_benchmark(arguments.name, arguments.benchmarks)
    with judge_of(arguments) as judge:
        document = score(benchmark, arguments.data, arguments.answers, arguments.rules, judge)
    text = json.dumps(document, ensure_ascii=False, indent=2)
    if arguments.out:
        with complete_file(arguments.out) as stream:
            stream.write(text + "\n")
    print(text if arguments.json else "\n".join(score_lines(document)))
    return EXIT_OK


def score_lines(document: dict) -> list[str]:
    """A document of `score` for people."""
    lines = [f"{document['benchmark']} by the rules {document['rules']}"]
    lines += [f"  {cell:<44}{value:>10.2f}" for cell, value in document["scores"].items()]
    lines += [f"note: {note}" for note in document["notes"]]
    if judge := document.get("judge"):
        counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in judge.items() if name != "model")
        lines.append(f"judge {judge['model']}: {counts}")
    rows = f"{document['scored']} of {document['expected']} rows scored"
    if document["headline"] is None:
        return [*lines, f"no headline figure: {rows}"]
    return [*lines, f"headline: {document['headline']:.2f} ({rows})"]
