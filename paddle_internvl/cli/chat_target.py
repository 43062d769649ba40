"""Flags of the model of a command, an OpenAI-compatible endpoint or a checkpoint: see `evaluation.chats`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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


def url_of(arguments: argparse.Namespace) -> str | None:
    """The server's URL, of --url or in the place of CKPT; None for a checkpoint, or none of both.

    Raises:
        ValueError: both are given.
    """
    if arguments.checkpoint is not None and arguments.url is not None:
        raise ValueError("give either CKPT or --url")
    return arguments.url or (arguments.checkpoint if "://" in (arguments.checkpoint or "") else None)


def refuse_flags(arguments: argparse.Namespace, url: str | None, of_a_checkpoint: Sequence[str]) -> None:
    """Refuse flags without a meaning.

    Args:
        arguments: of the command.
        url: of a server; None: of a checkpoint.
        of_a_checkpoint: names of the flags that mean nothing for a server.
    """
    for name in of_a_checkpoint if url else ("model", "key"):
        if getattr(arguments, name):
            raise ValueError(
                f"--{name.replace('_', '-')} has no meaning for "
                + ("a server; leave it out" if url else "a checkpoint")
            )
