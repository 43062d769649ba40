"""Flags of a judge model: an OpenAI-compatible endpoint or a checkpoint in this process.

In: parsed arguments. Out: a `Judge` for the length of a `with` block.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.cli.argument_types import integer

_ENVIRONMENT = "env"


def add_judge_flags(parser: argparse.ArgumentParser) -> None:
    """Add --judge and the flags of its model, requests and cache."""
    parser.add_argument(
        "--judge", metavar="URL|CKPT|env",
        help="judge: an OpenAI-compatible endpoint, a checkpoint folder or hub id, or 'env' for $OPENAI_API_BASE",
    )  # fmt: skip
    parser.add_argument("--judge-model", metavar="NAME",
                        help="model of the endpoint (default: $LOCAL_LLM, else its first)")  # fmt: skip
    parser.add_argument("--judge-key", metavar="KEY", help="API key of the endpoint (default: $OPENAI_API_KEY)")
    parser.add_argument("--judge-concurrency", type=integer(1), default=8, metavar="N",
                        help="requests at a time (default: 8)")  # fmt: skip
    parser.add_argument("--judge-max-tokens", type=integer(1), default=1024, metavar="N",
                        help="limit of a reply (default: 1024)")  # fmt: skip
    parser.add_argument("--judge-cache", type=Path, metavar="FILE",
                        help="JSONL of replies: asked once, read by later runs")  # fmt: skip


@contextlib.contextmanager
def judge_of(arguments: argparse.Namespace) -> Iterator:
    """The `Judge` of the flags; None without --judge.

    Args:
        arguments: with the flags of `add_judge_flags`.
    """
    if arguments.judge is None:
        yield None
        return
    from paddle_internvl.evaluation.judge import Judge

    judge = Judge(
        chat_of(arguments.judge, arguments.judge_model, arguments.judge_key), arguments.judge_cache,
        arguments.judge_concurrency, arguments.judge_max_tokens,
    )  # fmt: skip
    with contextlib.closing(judge):
        yield judge


def chat_of(target: str, model: str | None = None, key: str | None = None, **backend):
    """A `ChatEndpoint` or a `ChatCheckpoint`.

    Args:
        target: URL, checkpoint folder or hub id, or 'env'.
        model: of an endpoint; None: see `ChatEndpoint`.
        key: of an endpoint; None: see `ChatEndpoint`.
        backend: fields of a checkpoint's `EngineConfig`.
    """
    if target == _ENVIRONMENT or "://" in target:
        from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint

        return ChatEndpoint(None if target == _ENVIRONMENT else target, model, key)
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder

    folder = chat_folder(target)
    startup.import_paddle()
    from paddle_internvl.chat.pipeline import EngineConfig, pipeline
    from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint

    return ChatCheckpoint(pipeline(str(folder), EngineConfig(**backend)), os.path.basename(os.path.abspath(folder)))
