"""Answering model of `curate sample` and `curate dropout-ntp`: flags, and the answers of a checkpoint or an endpoint.

In: parsed arguments. Out: `Answers`, for the length of a `with` block.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.cli import chat_target
from paddle_internvl.cli.argument_types import integer, number
from paddle_internvl.cli.conventions import add_adapter_flag, add_hub_flag, add_workers_flags, require_workers
from paddle_internvl.evaluation.chats import chat_of, is_endpoint

_TOP_K, _TILES, _BATCH, _CONCURRENCY = 50, 6, 64, 16  # defaults
# Flags of a checkpoint, which an endpoint has settings of its own for; and of an endpoint.
_CHECKPOINT_FLAGS = ("adapter", "device", "dtype", "max_num", "batch_size", "workers", "ray_address")
_ENDPOINT_FLAGS = ("model", "key", "concurrency")


def add_answering_flags(parser: argparse.ArgumentParser, max_new_tokens: int, endpoints: bool = True) -> None:
    """Add the flags of the model, of the sampling and of the workers.

    Args:
        parser: of the command.
        max_new_tokens: default limit of an answer.
        endpoints: whether the model may be an endpoint.
    """
    add_adapter_flag(parser)
    add_hub_flag(parser)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the media (default: the input's)")
    parser.add_argument("--temperature", type=number(0.01), default=0.7, help="(default: 0.7)")
    parser.add_argument("--top-k", type=int, help=f"(default: {_TOP_K}; to an endpoint it is sent if it is given)")
    parser.add_argument("--top-p", type=number(0), default=1.0, help="(default: 1.0)")
    parser.add_argument("--max-new-tokens", type=integer(1), default=max_new_tokens, metavar="N",
                        help=f"(default: {max_new_tokens})")  # fmt: skip
    parser.add_argument("--max-num", type=integer(1), metavar="N", help=f"tile limit (default: {_TILES})")
    parser.add_argument("--batch-size", type=integer(1), metavar="N",
                        help=f"answers sampled together (default: {_BATCH})")  # fmt: skip
    parser.add_argument("--seed", type=integer(0), default=0, help="of the sampling (default: 0)")
    parser.add_argument("--device", help="cpu or gpu (default: gpu where there is one)")
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (default: the best there is)")
    add_workers_flags(parser, "with a model each")
    if endpoints:
        chat_target.add_endpoint_flags(parser)
        parser.add_argument("--concurrency", type=integer(1), metavar="N",
                            help=f"requests to the endpoint at a time (default: {_CONCURRENCY})")  # fmt: skip


@contextlib.contextmanager
def answers_of(arguments: argparse.Namespace, target: str) -> Iterator:
    """The `Answers` of a model.

    Args:
        arguments: with the flags of `add_answering_flags`.
        target: checkpoint folder or hub id, URL or 'env'.
    Raises:
        ValueError: flags of a checkpoint for an endpoint, or the other way round.
    """
    remote = is_endpoint(target)
    for name in _CHECKPOINT_FLAGS if remote else _ENDPOINT_FLAGS:
        if getattr(arguments, name, None) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for {'a checkpoint' if remote else 'an endpoint'}")
    require_workers(arguments)
    if remote:
        from paddle_internvl.curation.answering import endpoint_answers

        names = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
        fields = {field: getattr(arguments, name) for field, name in names.items()}
        with contextlib.closing(chat_of(target, arguments.model, arguments.key)) as chat:
            yield endpoint_answers(chat, fields, arguments.concurrency or _CONCURRENCY)
        return
    from paddle_internvl.curation.answering import pipeline_answers

    make = functools.partial(_worker, *_checkpoint(arguments, target))
    size = arguments.batch_size or _BATCH
    if arguments.workers is None:
        with make() as worker:
            yield pipeline_answers(worker, size)
        return
    from paddle_internvl.scale.ordered_actors import batches, map_batches

    def answers(requests) -> Iterator[str]:
        results = map_batches(
            make, batches(requests, size), arguments.workers, arguments.ray_address, arguments.device
        )  # fmt: skip
        return (text for result in results for text in result)

    yield answers


def _checkpoint(arguments: argparse.Namespace, target: str) -> tuple[str, dict, dict]:
    """Folder, backend and generation settings, checked before a model is loaded."""
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder

    folder = str(Path(chat_folder(target)).resolve())  # workers start elsewhere
    backend = {
        "device": arguments.device, "dtype": arguments.dtype or "auto", "max_num": arguments.max_num or _TILES,
        "adapter": arguments.adapter and str(adapter_folder(arguments.adapter)),
    }  # fmt: skip
    generation = {name: getattr(arguments, name) for name in ("temperature", "top_p", "max_new_tokens")}
    top_k = _TOP_K if arguments.top_k is None else arguments.top_k
    return folder, backend, {"do_sample": True, "top_k": top_k, **generation}


def _worker(folder: str, backend: dict, generation: dict):
    """A `PipelineWorker` with its model loaded."""
    from paddle_internvl import startup

    startup.import_paddle()
    from paddle_internvl.chat.pipeline import EngineConfig, pipeline
    from paddle_internvl.curation.answering import PipelineWorker

    return PipelineWorker(pipeline(folder, EngineConfig(**backend)), generation)


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator:
    """A progress bar as a function of the answers that a file has and those that it will have."""
    from paddle_internvl.progress import bar

    with bar(title, unit=unit) as progress:

        def on_progress(done: int, total: int) -> None:
            progress.total = total
            progress.n = done
            progress.refresh()

        yield on_progress
