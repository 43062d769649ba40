"""The model runner of a tensor-parallel model: command replay on every rank, and `run_rank`.

Every rank runs the same program. An answer (`chat`, `chat_messages`, ...) is a collective call: rank 0's engine
schedules and broadcasts each command of its runner, the other ranks execute it, and all return rank 0's answer. A
program whose input only rank 0 has, such as a server, puts its work into `run_rank`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import paddle

from paddle_internvl.engine.model_runner import ModelRunner
from paddle_internvl.parallel import sharded_layers
from paddle_internvl.parallel.tensor_parallel import Result, broadcast_command, follow

T = TypeVar("T")


class TensorParallelRunner(ModelRunner):
    """A `ModelRunner` on every rank, whose methods are commands: rank 0's calls are broadcast.

    There is one at a time for each process group: a newer one takes the place of an older one.

    Args:
        model: a tensor-parallel `InternVLChatModel`.
        num_blocks: of the KV cache.
    """

    def __init__(self, model, num_blocks: int):
        self._group = model.process_group
        self._group.num_runners += 1
        self._number = self._group.num_runners
        with self._command("allocate", num_blocks):
            super().__init__(model, num_blocks)

    def _command(self, name: str, *arguments):
        if self._group.num_runners != self._number:
            raise RuntimeError("another engine uses the tensor-parallel model; use one engine at a time")
        return broadcast_command(self._group, name, *arguments)

    def feature_steps(self, tiles: np.ndarray) -> Iterator[paddle.Tensor | None]:
        """See `ModelRunner`; without pauses between layers."""
        yield self.extract_feature(paddle.to_tensor(tiles))

    def extract_feature(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Visual tokens [T, N, D] of tiles [T, 3, S, S], each rank computing its share of the tiles."""
        with self._command("extract_feature", pixel_values):
            return sharded_layers.extract_feature(self.model, pixel_values, self._group)

    def embed(self, ids, visual_tokens):
        """See `ModelRunner`; only rank 0 has the visual tokens, and needs the result."""
        with self._command("embed", ids, None):
            return super().embed(ids, visual_tokens)

    def prefill(self, embeds, blocks, start, prompt_length):
        """See `ModelRunner`."""
        with self._command("prefill", embeds, blocks, start, prompt_length):
            return super().prefill(embeds, blocks, start, prompt_length)

    def decode(self, ids, block_tables, lengths):
        """See `ModelRunner`."""
        with self._command("decode", ids, block_tables, lengths):
            return super().decode(ids, block_tables, lengths)

    def clear_blocks(self, blocks):
        """See `ModelRunner`."""
        with self._command("clear_blocks", blocks):
            super().clear_blocks(blocks)


@paddle.no_grad()
def follow_rank_0(model) -> Result | None:
    """Ranks above 0: execute the commands of rank 0's runner until it sends a result; None: until shutdown."""
    runner: TensorParallelRunner | None = None

    def execute(name: str, *arguments) -> None:
        nonlocal runner
        if name == "allocate":
            runner = TensorParallelRunner(model, *arguments)
        else:
            getattr(runner, name)(*arguments)

    return follow(model.process_group, execute)


def receive_result(model):
    """Ranks above 0: execute the commands of rank 0's runner until it sends a result, which is returned.

    Raises:
        RuntimeError: rank 0 shuts down first, or has ended.
    """
    result = follow_rank_0(model)
    if result is None:
        raise RuntimeError("rank 0 shut down without a result; make the same calls on every rank")
    return result.value


def run_rank(model, main: Callable[[object], T]) -> T | None:
    """Run a program on rank 0 of a tensor-parallel model; the other ranks execute the model's commands meanwhile.

    SIGINT and SIGTERM, which a launcher sends to every rank, are left to rank 0 in the meantime.

    Args:
        model: from `from_pretrained(..., tensor_parallel_degree=N)` on every rank, or a model of one process.
        main: called with the model on rank 0.
    Returns:
        What `main` returns; None on the other ranks, once it has ended.
    """
    group = model.process_group
    if group is None:
        return main(model)
    if group.leads:
        try:
            return main(model)
        finally:
            group.shutdown()
    with _ignored(signal.SIGINT, signal.SIGTERM):
        while follow_rank_0(model) is not None:
            pass
    return None


@contextmanager
def _ignored(*signals: signal.Signals) -> Iterator[None]:
    """Context in which signals are ignored; their handlers are restored. Only the main thread can do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
