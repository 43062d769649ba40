"""Download a checkpoint from a hub into the hub's usual cache, and print its folder.

Only safetensors and text files are downloaded, never code or pickles. A download that broke off goes on. With
HF_HUB_OFFLINE=1 there is no download, and the folder is printed if the cache has it whole.

examples:
  paddle-internvl download OpenGVLab/InternVL2_5-2B
  paddle-internvl download OpenGVLab/InternVL2_5-2B --hub modelscope --json
  HF_ENDPOINT=https://hf-mirror.com paddle-internvl download OpenGVLab/InternVL2_5-2B
  python -m convert hf2pd --src $(paddle-internvl download OpenGVLab/InternVL2_5-2B) --dst InternVL2_5-2B-paddle
"""

from __future__ import annotations

import argparse
import json

from convert.command_line import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="ID", help="owner/name; an existing folder's path is printed")
    parser.add_argument("--revision", help="branch, tag or commit (default: the main one)")
    parser.add_argument("--cache-dir", metavar="FOLDER", help="instead of the hub client's own")
    parser.add_argument("--no-weights", action="store_true", help="download configs and tokenizer files only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.checkpoints import hub

    folder = hub.folder_of(
        arguments.checkpoint,
        revision=arguments.revision,
        cache_dir=arguments.cache_dir,
        weights=not arguments.no_weights,
    )
    if arguments.json:
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
        print(json.dumps({"folder": str(folder), "bytes": files}))
    else:
        print(folder)
    return EXIT_OK
