"""Ranks as threads of one process: the interface of `ProcessGroup`, without processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import paddle

from paddle_internvl.checkpoints import loading
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.parallel.process_group import CollectiveGuard

_LOADING = threading.Lock()  # LazyGuard is global to the process


class ThreadGroup:
    """One rank of a group of threads; see `ProcessGroup`."""

    def __init__(self, rank: int, size: int, exchange: Exchange):
        self.rank, self.size, self._exchange = rank, size, exchange
        self.leads = rank == 0
        self.collectives = CollectiveGuard()
        self.num_runners = 0

    def sum(self, x):
        self.collectives.require()
        paddle.assign(paddle.add_n(self._exchange(self.rank, x.clone())), x)
        return x

    def gather(self, x, axis):
        self.collectives.require()
        return paddle.concat(self._exchange(self.rank, x), axis=axis)

    def broadcast(self, x):
        self.collectives.require()
        paddle.assign(self._exchange(self.rank, x)[0], x)

    def barrier(self):
        if not _LOADING.locked():  # ranks load one after the other
            self._exchange(self.rank, None)

    def send_command(self, command):
        for commands in self._exchange.commands[1:]:
            commands.put(command)

    def next_command(self):
        return self._exchange.commands[self.rank].get(timeout=300)

    def shutdown(self):
        self.send_command(None)


class Exchange:
    """Where the threads wait for each other and exchange values."""

    def __init__(self, size: int):
        self._barrier = threading.Barrier(size, timeout=300)
        self._values = [None] * size
        self.commands = [queue.Queue() for _ in range(size)]

    def __call__(self, rank: int, value) -> list:
        """Every rank's value, in order of rank."""
        self._values[rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def abort(self):
        self._barrier.abort()


def run_ranks(size: int, work: Callable[[ThreadGroup], object]) -> list:
    """Results of `work(group)` on each of `size` ranks; the first error is raised."""
    exchange, results, errors = Exchange(size), [None] * size, []

    def run(rank: int) -> None:
        try:
            with paddle.no_grad():
                results[rank] = work(ThreadGroup(rank, size, exchange))
        except Exception as error:
            errors.append(error)
            exchange.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return results


def run_sharded(monkeypatch, folder, size: int, work, **options) -> list:
    """Results of `work(model)` on each rank of a tensor-parallel model of a folder."""
    local = threading.local()
    monkeypatch.setattr(loading, "join_process_group", lambda *_: (local.group, "cpu"))

    def run(group):
        local.group = group
        with _LOADING:
            model = loading.load(InternVLChatModel, str(folder), ranks=size, **options)
        model.img_context_token_id = 1002
        return work(model)

    return run_ranks(size, run)


def logits(model, *inputs, **named) -> paddle.Tensor:
    """Logits of a forward by hand, which every rank calls."""
    if model.process_group is None:
        with paddle.no_grad():
            return model(*inputs, **named).logits
    with model.process_group.collectives.allowed():
        return model(*inputs, **named).logits
