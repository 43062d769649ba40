"""Evaluate a model on the benchmarks of the model cards.

examples:
  paddle-internvl eval run CKPT --data MMBench_DEV_EN_V11 MMStar OCRBench
  paddle-internvl eval score MMStar --data MMStar.tsv --answers outputs/model/model_MMStar.xlsx
  paddle-internvl eval prompts MMStar --data MMStar.tsv --model CKPT --style MPO
  paddle-internvl eval list
  paddle-internvl eval table outputs/model --beside InternVL2_5-4B-MPO
  paddle-internvl eval compare outputs/model outputs/tuned --flips 20
  paddle-internvl eval report outputs/model MMStar --data MMStar.tsv --out mmstar.html
"""

from __future__ import annotations

import argparse

from paddle_internvl.cli import eval_compare, eval_list, eval_prompts, eval_report, eval_run, eval_score, eval_table
from paddle_internvl.cli.conventions import add_subcommands

_TOOLS = {
    "run": eval_run,
    "score": eval_score,
    "prompts": eval_prompts,
    "list": eval_list,
    "table": eval_table,
    "compare": eval_compare,
    "report": eval_report,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subcommands(parser, _TOOLS, "tool", "TOOL")


def run(arguments: argparse.Namespace) -> int:
    return _TOOLS[arguments.tool].run(arguments)
