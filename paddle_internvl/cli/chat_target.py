"""Flags of the model of a command, an OpenAI-compatible endpoint or a checkpoint: see `evaluation.chats`."""

from __future__ import annotations

import argparse

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
