"""Curate training data: filters, manual review, sampled answers, and preference pairs from them.

examples:
  paddle-internvl curate filter data.jsonl filtered
  paddle-internvl curate review filtered/flagged.jsonl
  paddle-internvl curate sample questions.jsonl answers.jsonl CKPT --prompt-version en
  paddle-internvl curate pairs answers.jsonl pairs
  paddle-internvl curate dropout-ntp samples.jsonl pairs.jsonl CKPT
"""

from __future__ import annotations

import argparse

from paddle_internvl.cli import curate_dropout_ntp, curate_filter, curate_pairs, curate_review, curate_sample

_TOOLS = {
    "filter": curate_filter,
    "review": curate_review,
    "sample": curate_sample,
    "pairs": curate_pairs,
    "dropout-ntp": curate_dropout_ntp,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    for name, module in _TOOLS.items():
        summary, _, details = module.__doc__.partition("\n\n")
        tool = tools.add_parser(name, help=summary, description=summary, epilog=details.strip())
        module.add_arguments(tool)


def run(arguments: argparse.Namespace) -> int:
    return _TOOLS[arguments.tool].run(arguments)
