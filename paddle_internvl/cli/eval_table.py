"""Print the scores of runs as the tables of the model cards, beside the published figures.

RUN is a folder that `eval run` wrote (or a folder of such folders, or a .score.json file). A benchmark of which rows
have no answer gets no figure but its row counts, and a table with such a benchmark gets no average.

examples:
  paddle-internvl eval table outputs/InternVL2_5-4B-MPO
  paddle-internvl eval table outputs --card mpo --format latex --out table.tex
  paddle-internvl eval table outputs/mine --beside InternVL2_5-4B-MPO --radar radar.png --bars bars.png
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import plot_file

_CARDS = ("mpo", "internvl2", "internvl2-video", "internvl2-grounding")
_FORMATS = ("markdown", "csv", "latex")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a model's score files")
    parser.add_argument(
        "--card", nargs="+", choices=_CARDS, help="tables (default: those that have the model, or its benchmarks)"
    )
    parser.add_argument("--beside", metavar="MODEL", help="published model (default: the one whose name the run has)")
    parser.add_argument("--format", choices=_FORMATS, default="markdown", help="of the tables (default: markdown)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the tables (default: print them)")
    parser.add_argument(
        "--radar", type=plot_file, metavar="FILE", help="draw the figures of the first table as a radar"
    )
    parser.add_argument("--bars", type=plot_file, metavar="FILE", help="draw them as bars")
    parser.add_argument("--json", action="store_true", help="print the tables as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.plots import draw_bars, draw_radar, plotted_card
    from paddle_internvl.evaluation.run_scores import read_runs
    from paddle_internvl.evaluation.table import tables_of
    from paddle_internvl.evaluation.table_formats import FORMATS
    from paddle_internvl.jsonl import complete_file

    runs = read_runs(arguments.runs)
    tables = tables_of(runs, arguments.card, arguments.beside)
    for file, draw in ((arguments.radar, draw_radar), (arguments.bars, draw_bars)):
        if file:
            draw(plotted_card(runs, arguments.card, arguments.beside), file)
    text = FORMATS[arguments.format](tables)
    if arguments.out:
        with complete_file(arguments.out) as stream:
            stream.write(text)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(table) for table in tables], ensure_ascii=False, indent=2))
    elif not arguments.out:
        print(text, end="")
    return EXIT_OK
