"""Merge a LoRA adapter into its base model, and write a plain checkpoint; or write the adapter in another layout.

The source is an adapter's folder of PEFT (adapter_config.json) or PaddleNLP (lora_config.json), or upstream's
checkpoint with unmerged LoRA. A merged checkpoint has Paddle's layout; its merged weights are float32, unless --dtype
rounds them. --layout peft and paddlenlp write the adapter alone, unmerged upstream's checkpoint.

examples:
  paddle-internvl merge-lora runs/lora merged
  paddle-internvl merge-lora adapter merged --base OpenGVLab/InternVL2_5-1B
  paddle-internvl merge-lora adapter merged --dtype bfloat16
  paddle-internvl merge-lora work_dirs/internvl_chat_lora merged
  paddle-internvl merge-lora work_dirs/internvl_chat_lora adapter --layout peft
"""

from __future__ import annotations

import argparse
from pathlib import Path

from convert.command_line import EXIT_OK

_DTYPES = ("float32", "bfloat16", "float16")
_LAYOUTS = ("merged", "peft", "paddlenlp", "unmerged")
_MAX_SHARD_SIZE = "5GB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ADAPTER|CKPT", help="folder of an adapter or of an unmerged checkpoint")
    parser.add_argument("out", metavar="OUT", help="folder to be written, empty or missing")
    parser.add_argument("--base", metavar="CKPT", help="base model: folder or hub id (default: the adapter names it)")
    parser.add_argument("--layout", choices=_LAYOUTS, default="merged", help="of OUT (default: merged)")
    parser.add_argument("--dtype", choices=_DTYPES, help="of merged weights (default: float32, as computed)")
    parser.add_argument("--max-shard-size", metavar="SIZE", help=f"of a weight file (default: {_MAX_SHARD_SIZE})")


def run(arguments: argparse.Namespace) -> int:
    from convert.safetensors_io import parse_size

    if arguments.layout != "merged":
        return _write_layout(arguments)
    from paddle_internvl.checkpoints.merging import merge_adapter

    size = parse_size(arguments.max_shard_size or _MAX_SHARD_SIZE)
    count = merge_adapter(arguments.source, arguments.out, arguments.base, arguments.dtype, size)
    print(f"{arguments.out}: {count} layers merged")
    return EXIT_OK


def _write_layout(arguments: argparse.Namespace) -> int:
    """Write the adapter unmerged."""
    for flag in ("dtype", "max_shard_size"):
        if getattr(arguments, flag) is not None:
            raise ValueError(f"--{flag.replace('_', '-')} is of merged weights; leave it out with --layout")
    if arguments.layout == "unmerged":
        from paddle_internvl.checkpoints.unmerged import write_unmerged

        count = write_unmerged(arguments.source, arguments.out, arguments.base)
    else:
        from paddle_internvl.checkpoints.merging import rewrite_adapter

        count = rewrite_adapter(Path(arguments.source), Path(arguments.out), arguments.layout, arguments.base)
    print(f"{arguments.out}: an adapter of {count} layers, {arguments.layout}")
    return EXIT_OK
