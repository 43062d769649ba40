"""The processes that share a model: who is who, sums and gathers over all, and a line on which rank 0 tells the others
what to do.

In: how many ranks there shall be, and the environment that `paddle.distributed.launch` sets. Out: the `Team`, one a
process. Tensors go through Paddle's collective operations; everything else goes over sockets, where a rank may wait as
long as it likes, and where the end of a process is seen at once by the others. Knows no model.
"""

from __future__ import annotations

import atexit
import os
import queue
import secrets
import sys
import threading
from functools import cache
from multiprocessing.connection import Client, Connection, Listener, wait

import paddle
import paddle.distributed as dist

_LAUNCH = "python -m paddle.distributed.launch --nproc_per_node {} $(which paddle-internvl) ..."


@cache
def team_of(size: int) -> Team:
    """The team of this process.

    Raises:
        ValueError: the process was not started as one of so many.
    """
    started = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if started != size:
        raise ValueError(
            f"tensor parallel over {size} needs {size} processes, and this is one of {started}; "
            f"start it with `{_LAUNCH.format(size)}`"
        )
    return Team(size)


class Team:
    """See the module. Every rank makes one at the same time.

    Attributes:
        rank: of this process; 0 leads. size: number of ranks. busy: whether there is a model that they share.
    """

    def __init__(self, size: int):
        # Not fleet.init: the groups it makes within all processes do not always come about on a CPU (gloo).
        dist.init_parallel_env()
        self.rank, self.size = dist.get_rank(), size
        self._told: queue.Queue = queue.Queue()
        self._ready = threading.Semaphore(0)
        self.busy = False
        self._lines = self._connect()
        threading.Thread(target=self._watch if self.leads else self._listen, name="team", daemon=True).start()
        if self.leads:
            atexit.register(self.dismiss)

    @property
    def leads(self) -> bool:
        """Whether this is the rank that decides."""
        return self.rank == 0

    @staticmethod
    def device() -> str:
        """The card that the launcher gave to this rank."""
        return f"gpu:{dist.ParallelEnv().device_id}"

    # ------------------------------------------------------------------------------------------------- tensors
    def sum(self, x: paddle.Tensor) -> paddle.Tensor:
        """The sum of every rank's `x`, in its place."""
        dist.all_reduce(x)
        return x

    def gather(self, x: paddle.Tensor, axis: int) -> paddle.Tensor:
        """Every rank's `x` one after the other."""
        parts: list[paddle.Tensor] = []
        dist.all_gather(parts, x.contiguous())
        return paddle.concat(parts, axis=axis)

    def hand_out(self, x: paddle.Tensor) -> None:
        """Rank 0's `x` in the place of everybody's."""
        dist.broadcast(x, src=0)

    # ------------------------------------------------------------------------------------------------- the line
    def _connect(self) -> list[Connection]:
        """Rank 0: a line to each other rank, in order. Others: the line to rank 0."""
        call: list = [None]
        if self.leads:
            host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "127.0.0.1:0").rpartition(":")[0]
            key = secrets.token_bytes(16)
            listener = Listener((host, 0), backlog=self.size, authkey=key)
            call = [(listener.address, key)]
        dist.broadcast_object_list(call, src=0)
        if not self.leads:
            address, key = call[0]
            line = Client(address, authkey=key)
            line.send(self.rank)
            return [line]
        lines = {}
        with listener:
            while len(lines) < self.size - 1:
                line = listener.accept()
                lines[line.recv()] = line
        return [lines[rank] for rank in sorted(lines)]

    def meet(self) -> None:
        """Rank 0: wait for all others to come here; others: tell that this one has. However long it takes."""
        if not self.leads:
            self._lines[0].send("here")
            return
        for _ in self._lines:
            self._ready.acquire()

    def tell(self, message) -> None:
        """Rank 0: send every other rank something."""
        for line in self._lines:
            line.send(message)

    def hear(self):
        """Other ranks: what rank 0 tells next; waits for it."""
        return self._told.get()

    def dismiss(self) -> None:
        """Rank 0: the others' work on the model is over."""
        if self.busy:
            self.busy = False
            self.tell(None)

    def _listen(self) -> None:
        while True:
            try:
                message = self._lines[0].recv()
            except (EOFError, OSError):
                if self.busy:
                    self._end("rank 0 has ended")
                return
            if message is None:
                self.busy = False
            self._told.put(message)

    def _watch(self) -> None:
        while True:
            for line in wait(self._lines):
                try:
                    line.recv()
                    self._ready.release()
                except (EOFError, OSError):
                    if self.busy:
                        self._end(f"rank {self._lines.index(line) + 1} has ended")
                    return

    def _end(self, why: str) -> None:
        """End this process at once: its main thread may be waiting in an operation that nothing interrupts."""
        print(f"error: {why}, so rank {self.rank} of {self.size} ends too", file=sys.stderr, flush=True)
        os._exit(1)
