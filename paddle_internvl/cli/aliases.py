"""Flags of LMDeploy, vLLM and FastDeploy, in three tables: names with the same meaning, flags without an effect, flags
that another one replaces.

In: the parsers of commands. Out: parsers that take these flags; the help does not show them.
"""

from __future__ import annotations

import argparse
import sys

from convert.command_line import Parser

ALIASES = {  # their flag -> ours
    "--host": "--server-name",
    "--port": "--server-port",
    "--model-name": "--served-model-name",
    "--max-model-len": "--session-len",
    "--max-num-seqs": "--max-batch-size",
    "--max-concurrency": "--max-batch-size",
    "--tensor-parallel-size": "--tp",
    "--data-parallel-size": "--replicas",
    "--api-key": "--api-keys",
    "--allowed-origins": "--allow-origins",
    "--uvicorn-log-level": "--log-level",
    "--max-tokens": "--max-new-tokens",
    "--system-prompt": "--system",
}
IGNORED = {  # flag -> why it has no effect
    "--trust-remote-code": "no code of a checkpoint is ever run",
    "--enable-prefix-caching": "prefix caching is always on",
    "--enable-chunked-prefill": "prefill is always in chunks",
    "--enforce-eager": "there is no graph compiler, and CUDA graphs only with --cuda-graph",
    "--enable-auto-tool-choice": "tools are always taken",
    "--tool-call-parser": "the format of tool calls is the checkpoint's",
    "--reasoning-parser": "thoughts are always apart from the answer",
    "--model-format": "config.json says how the weights are quantized",
    "--engine-worker-queue-port": "one process has the engine and the server",
}
REFUSED = {  # flag -> the way out
    "--model": "the checkpoint stands without a flag: paddle-internvl COMMAND CKPT",
    "--gpu-memory-utilization": "use --cache-max-entry-count, a share of the memory that is free behind the weights",
    "--quant-policy": "the KV cache is not quantized; --quantization wint8 or wint4 quantizes the weights",
    "--pipeline-parallel-size": "layers are not spread over processes; use --tp",
    "--metrics-port": "metrics are at /metrics of the server's port",
    "--limit-mm-per-prompt": "use --max-images and --max-videos",
    "--enable-lora": "use --adapter DIR, one adapter that is merged while loading",
    "--lora-modules": "use --adapter DIR, one adapter that is merged while loading",
    "--adapters": "use --adapter DIR, one adapter that is merged while loading",
}


class _Ignored(argparse.Action):
    """A flag without an effect: a note on stderr."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        print(f"note: {option_string} has no effect: {IGNORED[option_string]}", file=sys.stderr)


class _Refused(argparse.Action):
    """A flag that another one replaces: an error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.error(f"{option_string} is not taken: {REFUSED[option_string]}")


def add_aliases(parser: Parser) -> None:
    """Make a command take the flags of other projects.

    Args:
        parser: of the command, with all flags of its own.
    """
    for alias, option in ALIASES.items():
        parser.add_alias(alias, option)
    for table, action in ((IGNORED, _Ignored), (REFUSED, _Refused)):
        for flag in table:
            if flag not in parser.options:
                parser.add_argument(flag, nargs="?", action=action, help=argparse.SUPPRESS, default=argparse.SUPPRESS)
