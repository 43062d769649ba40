"""Flags of a judge model: an OpenAI-compatible endpoint or a checkpoint in this process.

In: parsed arguments. Out: a `Judge` for the length of a `with` block.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.cli import chat_target
from paddle_internvl.cli.argument_types import integer


def add_judge_flags(parser: argparse.ArgumentParser) -> None:
    """Add --judge and the flags of its model, requests and cache."""
    parser.add_argument("--judge", metavar=chat_target.TARGET, help=f"judge: {chat_target.TARGET_HELP}")
    chat_target.add_endpoint_flags(parser, "judge-")
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
    target = arguments.judge
    if target is None:
        yield None
        return
    from paddle_internvl.evaluation.chats import chat_of
    from paddle_internvl.evaluation.judge import Judge

    with contextlib.closing(chat_of(target, arguments.judge_model, arguments.judge_key)) as chat:
        yield Judge(chat, arguments.judge_cache, arguments.judge_concurrency, arguments.judge_max_tokens)
