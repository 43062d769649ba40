"""Tensor parallel by command replay: rank 0 broadcasts each command with its arguments, the other ranks execute the
same command in a loop until shutdown.

A command is the name of a method that an object of every rank has: `engine.tensor_parallel_runner`. Its arguments are
values that can be pickled, which go over sockets, and tensors, which go through the process group's broadcast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import paddle

from paddle_internvl import runtime
from paddle_internvl.parallel.process_group import ProcessGroup, process_group
from paddle_internvl.parallel.shards import ShardPlan


@dataclass(frozen=True)
class Result:
    """Message of rank 0 that ends a `follow`.

    Attributes:
        value: what every rank's call returns.
    """

    value: object


@dataclass(frozen=True)
class _TensorSpec:
    """Placeholder of a tensor that is broadcast after the command."""

    shape: list[int]
    dtype: str


@contextmanager
def broadcast_command(group: ProcessGroup, name: str, *arguments) -> Iterator[None]:
    """Context in which every rank executes a command. Rank 0 sends it; the others come here from `follow`.

    Args:
        group: the process group.
        name: of the command.
        arguments: tensors, and values that can be pickled.
    Raises:
        RuntimeError: the ranks are out of step, or one has ended.
    """
    if not group.leads:
        yield
        return
    tensors = [value.contiguous() for value in arguments if isinstance(value, paddle.Tensor)]
    with group.collectives.allowed():
        group.send_command((name, list(map(_spec, arguments))))
        for tensor in tensors:
            group.broadcast(tensor)
        yield


def follow(group: ProcessGroup, execute: Callable[..., None]) -> Result | None:
    """Ranks above 0: execute rank 0's commands until it sends a `Result`, which is returned; None at shutdown.

    Args:
        group: the process group.
        execute: called with the name and the arguments of each command.
    Raises:
        RuntimeError: rank 0 has ended.
    """
    while (message := group.next_command()) is not None:
        if isinstance(message, Result):
            return message
        name, arguments = message
        with group.collectives.allowed():
            execute(name, *(_receive(value, group) for value in arguments))
    return None


def _spec(value):
    if not isinstance(value, paddle.Tensor):
        return value
    return _TensorSpec(value.shape, str(value.dtype).removeprefix("paddle."))


def _receive(value, group: ProcessGroup):
    if not isinstance(value, _TensorSpec):
        return value
    tensor = paddle.empty(value.shape, value.dtype)
    group.broadcast(tensor)
    return tensor


def join_process_group(config, ranks: int, device: str | None, device_map) -> tuple[ProcessGroup, str]:
    """The process group of a model that is to be loaded, and this rank's device.

    Args:
        config: an `InternVLChatConfig`.
        ranks: number of processes.
        device: 'cpu', 'gpu' or None.
        device_map: must be None.
    Raises:
        ValueError: the model can't be sharded over so many ranks, they were not launched, or a device is given.
    """
    if device_map is not None or (device or "cpu") not in ("cpu", "gpu"):
        raise ValueError("in tensor parallel every rank has its own card; give no device_map, and no device but 'cpu'")
    if not hasattr(config, "llm_config"):
        raise ValueError(f"tensor parallel is for InternVL chat models, not for a {config.model_type} alone")
    kind = runtime.choose_device(device)
    ShardPlan.of(vars(config.llm_config), 0, ranks)
    if kind == "cpu":
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")  # a CUDA build would choose NCCL
    group = process_group(ranks)
    return group, "cpu" if kind == "cpu" else group.device()
