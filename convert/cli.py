"""Command line of the converter.

    python -m convert hf2pd --src HF_DIR --dst DIR [--dtype bfloat16] [--max-shard-size 5GB]
                            [--quantize weight_only_int8|weight_only_int4 [--group-size 64]]
    python -m convert pd2hf --src DIR --dst HF_DIR [--layout transformers]
    python -m convert inspect DIR [--json]

Exit codes: 0 done, 2 the input or the call is wrong (one line says what and what to do), 130 interrupted. Results go to
stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from convert import CheckpointError
from convert.command_line import EXIT_OK, Parser, add_common_flags, run
from convert.dtypes import FLOATS
from convert.folder import read_config
from convert.mappings import rules_for
from convert.quant_config import Quantization
from convert.quant_layout import BITS, GROUP_SIZES
from convert.rules import plan
from convert.safetensors_io import MAX_SHARD_SIZE, Checkpoint, parse_size
from convert.streaming import convert, is_paddle_layout


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_COMMANDS = {  # name -> summary, examples
    "hf2pd": (
        "Hugging Face folder -> Paddle folder",
        (
            "--src InternVL2_5-2B --dst InternVL2_5-2B-paddle",
            "--src InternVL2_5-2B --dst InternVL2_5-2B-int8 --quantize weight_only_int8",
            "--src $(paddle-internvl download OpenGVLab/InternVL2_5-2B) --dst InternVL2_5-2B-paddle",
        ),
    ),
    "pd2hf": (
        "Paddle folder -> Hugging Face folder",
        (
            "--src InternVL2_5-2B-paddle --dst InternVL2_5-2B-hf",
            "--src InternVL2_5-2B-paddle --dst InternVL2_5-2B-native --layout transformers",
        ),
    ),
    "inspect": ("list tensors and the rule that takes each", ("InternVL2_5-2B", "InternVL2_5-2B --json")),
}


def _parser() -> Parser:
    parser = Parser(prog="python -m convert", description="Checkpoints: Hugging Face <-> Paddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, examples) in _COMMANDS.items():
        lines = [f"python -m convert {name} {words}" for words in examples]
        command = commands.add_parser(name, help=summary, description=summary, examples=lines)
        _inspect_arguments(command) if name == "inspect" else _convert_arguments(command, name)
        command.add_argument("--json", action="store_true", help="print one JSON document")
    add_common_flags(parser)
    return parser


def _convert_arguments(command: argparse.ArgumentParser, name: str) -> None:
    command.add_argument("--src", type=Path, required=True, help="folder with config.json and *.safetensors")
    command.add_argument("--dst", type=Path, required=True, help="new folder; must not exist or be empty")
    command.add_argument("--dtype", choices=list(FLOATS), help="cast every float tensor (default: keep the bytes)")
    command.add_argument("--max-shard-size", type=_size, default=MAX_SHARD_SIZE, help="per file (default: 5GB)")
    command.set_defaults(layout="upstream", quantize=None, quantize_head=False)
    if name == "hf2pd":
        command.add_argument("--quantize", choices=list(BITS), help="the decoder blocks' linear weights")
        command.add_argument("--group-size", type=int, choices=GROUP_SIZES, default=-1,
                             help="inputs that share a scale (default: -1, all)")  # fmt: skip
        command.add_argument("--quantize-head", action="store_true", help="with --quantize: the output head too")
    if name == "pd2hf":
        command.add_argument("--layout", choices=("upstream", "transformers"), help="whose (default: upstream)")


def _inspect_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="checkpoint folder, raw or converted")


def _convert(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    silent = getattr(arguments, "quiet", False) or None  # None: a bar on a terminal, silence elsewhere
    _require(arguments.src)
    with tqdm(unit="B", unit_scale=True, desc=arguments.command, disable=silent) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        audit = convert(
            arguments.src,
            arguments.dst,
            to_paddle=arguments.command == "hf2pd",
            layout=arguments.layout,
            quantization=_quantization(arguments),
            dtype=arguments.dtype,
            max_shard_size=arguments.max_shard_size,
            progress=progress,
        )
    print(json.dumps(asdict(audit)) if arguments.json else audit)


def _quantization(arguments: argparse.Namespace) -> Quantization | None:
    if arguments.quantize:
        return Quantization(arguments.quantize, arguments.group_size, arguments.quantize_head)
    if arguments.quantize_head:
        raise CheckpointError("--quantize-head needs --quantize")
    return None


def _require(folder: Path) -> None:
    """Hub ids are for `paddle-internvl`: this package reads folders and asks no network."""
    if not folder.exists():
        is_id = len(folder.parts) == 2 and not folder.is_absolute() and folder.parts[0] not in ("..", "~")
        hint = f"; a hub id is fetched by `paddle-internvl download {folder}`" if is_id else ""
        raise CheckpointError(f"{folder} does not exist{hint}")


def _inspect(arguments: argparse.Namespace) -> None:
    _require(arguments.folder)
    checkpoint = Checkpoint(arguments.folder)
    to_paddle = not is_paddle_layout(checkpoint)
    rules = rules_for(read_config(arguments.folder), checkpoint.tensors)
    owner = {name: rule.kind for rule in rules for name in (rule.upstream if to_paddle else rule.ours)}
    rows = [
        {
            "name": name,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "file": info.file.name,
            "rule": owner.get(name, "-"),
        }
        for name, info in checkpoint.tensors.items()
    ]
    if arguments.json:
        print(json.dumps({"layout": "upstream" if to_paddle else "paddle", "tensors": rows}))
    else:
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            print(f"{row['name']:{width}}  {str(row['shape']):18} {row['dtype']:5} {row['rule']:7} {row['file']}")
        size = sum(info.nbytes for info in checkpoint.tensors.values())
        print(f"{len(rows)} tensors, {size:,} bytes, {'upstream' if to_paddle else 'Paddle'} layout")
    plan(rules, checkpoint.tensors, to_paddle=to_paddle)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    command = _inspect if arguments.command == "inspect" else _convert
    return run(
        lambda: command(arguments) or EXIT_OK,
        arguments,
        errors=(CheckpointError, OSError),
        interrupted="interrupted; run the same command again to go on from the finished shards",
    )
