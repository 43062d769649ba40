"""Merge a LoRA adapter into its base model, and write a plain checkpoint.

The source is an adapter's folder of PEFT (adapter_config.json) or PaddleNLP (lora_config.json), or upstream's
checkpoint with unmerged LoRA. The result has Paddle's layout. Merged weights are float32, unless --dtype rounds them.

examples:
  paddle-internvl merge-lora runs/lora merged
  paddle-internvl merge-lora adapter merged --base OpenGVLab/InternVL2_5-1B
  paddle-internvl merge-lora adapter merged --dtype bfloat16
  paddle-internvl merge-lora work_dirs/internvl_chat_lora merged
"""

from __future__ import annotations

import argparse

from convert.command_line import EXIT_OK
from convert.dtypes import FLOATS
from convert.safetensors_io import MAX_SHARD_SIZE, parse_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ADAPTER|CKPT", help="folder of an adapter or of an unmerged checkpoint")
    parser.add_argument("out", metavar="OUT", help="folder of the merged checkpoint, empty or missing")
    parser.add_argument("--base", metavar="CKPT", help="base model: folder or hub id (default: the adapter names it)")
    parser.add_argument("--dtype", choices=list(FLOATS), help="of merged weights (default: float32, as computed)")
    parser.add_argument(
        "--max-shard-size", metavar="SIZE", type=parse_size, default=MAX_SHARD_SIZE, help="of a weight file, as 5GB"
    )


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.checkpoints.merging import merge_adapter

    options = arguments.base, arguments.dtype, arguments.max_shard_size
    count = merge_adapter(arguments.source, arguments.out, *options)
    print(f"{arguments.out}: {count} layers merged")
    return EXIT_OK
