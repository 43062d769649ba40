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

_DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ADAPTER|CKPT", help="folder of an adapter or of an unmerged checkpoint")
    parser.add_argument("out", metavar="OUT", help="folder of the merged checkpoint, empty or missing")
    parser.add_argument("--base", metavar="CKPT", help="base model: folder or hub id (default: the adapter names it)")
    parser.add_argument("--dtype", choices=_DTYPES, help="of merged weights (default: float32, as computed)")
    parser.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="of a weight file (default: 5GB)")


def run(arguments: argparse.Namespace) -> int:
    from convert.safetensors_io import parse_size
    from paddle_internvl.checkpoints.merging import merge_adapter

    options = arguments.base, arguments.dtype, parse_size(arguments.max_shard_size)
    count = merge_adapter(arguments.source, arguments.out, *options)
    print(f"{arguments.out}: {count} layers merged")
    return EXIT_OK
