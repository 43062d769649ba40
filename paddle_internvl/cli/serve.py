"""Serve a checkpoint over HTTP, with OpenAI's API.

examples:
  paddle-internvl serve CKPT
  paddle-internvl serve CKPT --server-name 0.0.0.0 --api-keys @keys.txt --served-model-name InternVL2_5-8B
  paddle-internvl serve CKPT --adapter runs/lora --served-model-name tuned
  paddle-internvl serve CKPT --config configs/serve/default.yaml
  paddle-internvl serve CKPT --replicas 4             # processes of Ray, each with the model; one port
  paddle-internvl serve api_server CKPT --host 0.0.0.0 --port 8000    # LMDeploy's and vLLM's names
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) serve CKPT --tp 2
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.serve import settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hidden = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    parser.add_argument("api_server", nargs="?", choices=("api_server",), help=argparse.SUPPRESS)
    parser.add_argument("--backend", choices=("turbomind", "pytorch"), **hidden)  # LMDeploy's; there is one engine here
    parser.add_argument("--chat-template", **hidden)  # LMDeploy's; refused unless it is the checkpoint's own
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
    parser.add_argument(
        "--replicas", type=integer(1), metavar="N", help="serve with N processes, each with a model (needs Ray)"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the replicas' cluster (default: this machine alone)"
    )
    settings.add_flags(parser)


def _require_template(name: str, folder: Path) -> None:
    from convert.folder import read_config
    from convert.mappings import paddle_config
    from paddle_internvl.chat.lmdeploy import require_template
    from paddle_internvl.prompt.templates import get_conv_template

    require_template(name, get_conv_template(paddle_config(read_config(folder))["template"]))


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.from_arguments(arguments)
    chosen.media_limits()  # refuses wrong ones before the model is loaded
    if arguments.ray_address and arguments.replicas is None:
        raise ValueError("--ray-address is the cluster of replicas; give their number by --replicas")
    if arguments.replicas is not None and chosen.tp > 1:
        raise ValueError(f"--replicas and --tp {chosen.tp} exclude each other: a replica is one process")

    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder

    folder = chat_folder(arguments.checkpoint)
    if "chat_template" in arguments:
        _require_template(arguments.chat_template, folder)
    if chosen.adapter is not None:  # replicas start in other folders
        chosen = replace(chosen, adapter=str(adapter_folder(chosen.adapter)))
    startup.import_paddle()
    from paddle_internvl import run_rank
    from paddle_internvl.serve import server

    server.log_to_stderr(chosen.log_level)
    if chosen.served_model_name is None:
        chosen = replace(chosen, served_model_name=server.model_name(arguments.checkpoint))
    leads = chosen.tp == 1 or os.environ.get("PADDLE_TRAINER_ID", "0") == "0"
    with server.listen(chosen) if leads else nullcontext() as port:
        if arguments.replicas is None:
            model = server.load_model(arguments.checkpoint, chosen)
            run_rank(model, lambda model: server.run(server.engine_thread_of(model, chosen), chosen, port))
        else:
            from paddle_internvl.serve import replicas

            replicas.run(arguments.checkpoint, chosen, port, arguments.replicas, arguments.ray_address)
    return EXIT_OK
