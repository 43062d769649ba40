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
from paddle_internvl.cli.conventions import add_subcommands

_TOOLS = {
    "filter": curate_filter,
    "review": curate_review,
    "sample": curate_sample,
    "pairs": curate_pairs,
    "dropout-ntp": curate_dropout_ntp,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subcommands(parser, _TOOLS, "tool", "TOOL")


def run(arguments: argparse.Namespace) -> int:
    return _TOOLS[arguments.tool].run(arguments)
