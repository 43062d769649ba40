"""Serve a checkpoint over HTTP, with OpenAI's API.

examples:
  paddle-internvl serve CKPT
  paddle-internvl serve CKPT --server-name 0.0.0.0 --api-keys @keys.txt --served-model-name InternVL2_5-8B
  paddle-internvl serve CKPT --config configs/serve/default.yaml
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from paddle_internvl.serve import settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
    settings.add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.from_arguments(arguments)
    chosen.media_limits()  # what is wrong there is said before the model is loaded

    from paddle_internvl import runtime

    runtime.import_paddle_quietly()
    from paddle_internvl.serve import server

    server.log_to_stderr(chosen.log_level)
    if chosen.served_model_name is None:
        chosen = replace(chosen, served_model_name=server.model_name(arguments.checkpoint))
    with server.listen(chosen) as port:
        server.run(server.load_engine(arguments.checkpoint, chosen), chosen, port)
    return 0
