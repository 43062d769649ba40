"""List the benchmarks: files, scorers, judges, and the figures of the model cards that they stand beside.

examples:
  paddle-internvl eval list
  paddle-internvl eval list --card mpo
  paddle-internvl eval list --benchmarks mine.yaml --json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import conventions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--card", choices=("mpo", "internvl2"), help="only the benchmarks of this card's tables")
    parser.add_argument("--benchmarks", type=Path, metavar="FILE", help="YAML, JSON or Python file of more benchmarks")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each benchmark")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.user_benchmarks import all_benchmarks

    rows = [row for row in all_benchmarks(arguments.benchmarks).values() if arguments.card in (None, *row.cards)]
    if arguments.json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
        return EXIT_OK
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "files", "rows", "scorers", "judge", "headline", "card"):
        table.add_column(title, overflow="fold")
    for row in rows:
        files = [row.file, row.upstream and row.upstream.file]
        table.add_row(
            row.name, ", ".join(filter(None, files)), str(row.rows or ""), ", ".join(row.scorers.values()),
            row.judge or "", row.headline, ", ".join(f"{card}: {column}" for card, column in row.cards.items()),
        )  # fmt: skip
    conventions.console().print(table)
    return EXIT_OK
