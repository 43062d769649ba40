"""Answer a file of questions: a line of JSON each in, a line of JSON each out, in the same order.

A row is {"messages": [...]} or {"prompt": text, "images": [...]}, optionally with an "id" and "generation" settings of
its own; paths of pictures start from IN's folder. Rows that OUT answers already are not done again; a run with another
model or other settings than OUT was begun with (OUT.settings.json) moves OUT to OUT.1 and answers every row anew. Exit
code 1 if rows failed; OUT has the reasons. --workers N are processes of Ray, each with a model; without it this
process answers.

examples:
  paddle-internvl batch questions.jsonl answers.jsonl CKPT
  paddle-internvl batch questions.jsonl answers.jsonl CKPT --max-new-tokens 64
  paddle-internvl batch questions.jsonl answers.jsonl CKPT --workers 8 --ray-address auto
  paddle-internvl batch questions.jsonl answers.jsonl CKPT --thinking --max-new-tokens 16384
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.cli.conventions import add_adapter_flag, add_quantization_flag
from paddle_internvl.cli.thinking import add_thinking_flags, prompt_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help="file of questions")
    parser.add_argument("target", metavar="OUT", type=Path, help="file of answers; an existing one is continued")
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
    add_adapter_flag(parser)
    parser.add_argument(
        "--workers",
        type=integer(0),
        metavar="N",
        help="processes under Ray; 0: this process alone, without Ray (default: 0, with --ray-address 1)",
    )
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster, or auto (default: this machine alone)")
    parser.add_argument(
        "--batch-size", type=integer(1), default=16, metavar="N", help="rows answered together (default: 16)"
    )
    parser.add_argument(
        "--max-new-tokens", type=integer(1), default=512, metavar="N", help="of an answer (default: 512)"
    )
    parser.add_argument("--generation", default="{}", metavar="JSON", help="further settings of rows without their own")
    parser.add_argument("--system", help="system prompt ('' for none; default: the checkpoint's)")
    add_thinking_flags(parser)
    parser.add_argument(
        "--max-num", type=integer(1), metavar="N", help="tile limit of a picture (default: the model's)"
    )
    parser.add_argument("--device", help="cpu or gpu (default: gpu where there is one)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    add_quantization_flag(parser)
    parser.add_argument("--dtype", default="auto", help="bfloat16, float16 or float32 (default: the best there is)")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import progress
    from paddle_internvl.scale import batch

    if arguments.workers is None:
        arguments.workers = 1 if arguments.ray_address else 0
    job = _job(arguments, batch.Job)
    with progress.bar("answered", unit="row", delay=0) as bar:

        def on_progress(current: batch.Progress) -> None:
            if bar.total is None:
                bar.total, bar.initial = current.total, current.done
            bar.n = current.done
            bar.set_postfix(failed=current.failed)

        result = batch.run(
            arguments.source,
            arguments.target,
            job,
            arguments.workers,
            arguments.batch_size,
            arguments.ray_address,
            on_progress,
        )
    if arguments.json:
        summary = {"rows": result.total, "done": result.done, "failed": result.failed, "out": str(arguments.target)}
        print(json.dumps(summary))
    else:
        print(f"{result.done} of {result.total} rows done, {result.failed} failed: {arguments.target}")
    return EXIT_DIFFERENT if result.failed else EXIT_OK


def _job(arguments: argparse.Namespace, make):
    """The job of parsed arguments, checked before anything is loaded."""
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder
    from paddle_internvl.engine.config import quantization_options
    from paddle_internvl.generation.config import generation_config

    if arguments.ray_address and not arguments.workers:
        raise ValueError("--workers 0 uses no cluster; leave out --ray-address")
    try:
        generation = json.loads(arguments.generation)
    except ValueError as error:
        raise ValueError(f"--generation {arguments.generation} is no JSON: {error}") from None
    if not isinstance(generation, dict):
        raise ValueError(f"--generation {arguments.generation} is no JSON object")
    generation = {"max_new_tokens": arguments.max_new_tokens, **generation}
    generation_config(generation)
    local = Path(arguments.checkpoint).expanduser()
    chat_folder(arguments.checkpoint, weights=local.exists())
    return make(
        checkpoint=str(local.resolve()) if local.exists() else arguments.checkpoint,  # workers start elsewhere
        folder=arguments.source.resolve().parent,
        generation=generation,
        backend={
            "max_batch_size": arguments.batch_size,
            "dtype": arguments.dtype,
            "device": arguments.device,
            "max_num": arguments.max_num,
            "adapter": arguments.adapter and str(adapter_folder(arguments.adapter)),
            **quantization_options(arguments),
        },
        **prompt_options(arguments),
    )
