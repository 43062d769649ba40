"""Model of a command: an OpenAI-compatible endpoint, or a checkpoint in this process.

In: URL, 'env', or checkpoint. Out: a `ChatEndpoint` or a `ChatCheckpoint`.
"""

from __future__ import annotations

import argparse
import os

_ENVIRONMENT = "env"
TARGET = "URL|CKPT|env"
TARGET_HELP = "an OpenAI-compatible endpoint, a checkpoint folder or hub id, or 'env' for $OPENAI_API_BASE"


def add_endpoint_flags(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add --model and --key of an endpoint.

    Args:
        parser: of the command.
        prefix: of the names of the flags, such as 'judge-'.
    """
    parser.add_argument(f"--{prefix}model", metavar="NAME",
                        help="model of the endpoint (default: $LOCAL_LLM, else its first)")  # fmt: skip
    parser.add_argument(f"--{prefix}key", metavar="KEY", help="API key of the endpoint (default: $OPENAI_API_KEY)")


def is_endpoint(target: str) -> bool:
    """Whether a model is an endpoint."""
    return target == _ENVIRONMENT or "://" in target


def endpoint(target: str, model: str | None = None, key: str | None = None):
    """A `ChatEndpoint`.

    Args:
        target: URL, or 'env'.
        model: name of the model; None: see `ChatEndpoint`.
        key: API key; None: see `ChatEndpoint`.
    """
    from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint

    return ChatEndpoint(None if target == _ENVIRONMENT else target, model, key)


def checkpoint(target: str):
    """A `ChatCheckpoint` of a checkpoint folder or hub id."""
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder

    folder = chat_folder(target)
    startup.import_paddle()
    from paddle_internvl.chat.pipeline import pipeline
    from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint

    return ChatCheckpoint(pipeline(str(folder)), os.path.basename(os.path.abspath(folder)))
