"""Make preference pairs: right answers beside wrong ones, and beside responses without a clear answer.

ANSWERS is a JSONL of responses as `curate sample` writes it (question, answer, response, and image, video,
prompt_version), or a folder of such files. Final answers are parsed and compared with the ground truth; OUT gets
upstream's files: raw/NAME_pairs_vqa_correctness_rules.jsonl and _format_rules.jsonl, which train --method mpo reads,
pos_items and neg_items; and report.json, with the counts of all that is in no pair.

examples:
  paddle-internvl curate pairs answers.jsonl pairs
  paddle-internvl curate pairs answers.jsonl pairs --answer-fix --num-pairs-per-key 4 --json
  paddle-internvl curate pairs outputs/max_tiles_6 pairs --checks vqa_score,mc_score,math_score
  paddle-internvl curate pairs answers.jsonl pairs --as-upstream
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.cli.conventions import add_workers_flags, require_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ANSWERS", type=Path, help="file or folder of .jsonl files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the pairs")
    parser.add_argument(
        "--num-pairs-per-key", type=integer(1), default=15, metavar="K",
        help="most pairs of a question, of each kind (default: 15)",
    )  # fmt: skip
    parser.add_argument(
        "--checks", type=lambda text: tuple(text.split(",")), metavar="NAME,…",
        help="how answers are compared: vqa_score relaxed_accuracy anls mc_score math_score latex_score "
        "math_verify_score (default: by the file's name, as upstream)",
    )  # fmt: skip
    parser.add_argument("--answer-fix", action="store_true", help="spell right answers as the ground truth (en, zh)")
    parser.add_argument(
        "--use-correctness-cache", action="store_true", help="take is_correct of the lines instead of comparing answers"
    )
    parser.add_argument("--max-lines", type=integer(1), metavar="N", help="lines read of a file (default: all)")
    parser.add_argument("--on-bad-line", choices=("error", "skip"), default="error", help="(default: error)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice among too many pairs (default: 0)")
    parser.add_argument("--as-upstream", action="store_true", help="as upstream's script, its faults included")
    add_workers_flags(parser, "that compare answers")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of OUT")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.curation.jsonl import input_files
    from paddle_internvl.curation.pairs import PairSettings, build_pairs
    from paddle_internvl.jsonl import complete_file
    from paddle_internvl.progress import bar

    require_workers(arguments)
    report = arguments.out / "report.json"
    if report.exists() and not arguments.overwrite:
        raise ValueError(f"{report} exists; --overwrite replaces it")
    settings = PairSettings(**{name: getattr(arguments, name) for name in PairSettings.__dataclass_fields__})
    counts = {}
    for file in input_files(arguments.source):
        with bar(file.name, unit="line") as progress:
            counts[file.stem] = build_pairs(file, arguments.out, settings, lambda lines: progress.update())
    text = json.dumps(counts, ensure_ascii=False, indent=2)
    with complete_file(report) as stream:
        stream.write(text + "\n")
    print(text if arguments.json else "\n".join(_lines(counts, arguments.out)))
    return EXIT_OK


def _lines(counts: dict[str, dict], out: Path) -> list[str]:
    """The counts for people."""
    lines = []
    for name, part in counts.items():
        lines.append(f"{name} ({', '.join(part['checks'])})")
        lines += [f"  {key:<32}{value:>10,}" for key, value in part.items() if key != "checks"]
    return [*lines, f"pairs: {out / 'raw'}"]
