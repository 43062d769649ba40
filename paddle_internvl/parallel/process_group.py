"""Process group of a tensor-parallel model: collective operations on tensors, and commands from rank 0 to the others.

Tensors go through Paddle's collective operations. Commands go over sockets, where a rank may wait as long as it likes
and sees at once that another process has died.
"""

from __future__ import annotations

import atexit
import os
import queue
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Client, Connection, Listener

import paddle
import paddle.distributed as dist

_LAUNCH = "python -m paddle.distributed.launch --nproc_per_node {} $(which paddle-internvl) ..."
_ARRIVED, _GOODBYE, _SHUTDOWN = "arrived", "goodbye", "shutdown"
_NOTICE_SECONDS = 2.0  # in which a listener notices that its peer has died


@cache
def process_group(size: int) -> ProcessGroup:
    """The process group of this process.

    Raises:
        ValueError: the process was not launched as one of `size`.
    """
    started = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if started != size:
        raise ValueError(
            f"tensor parallel over {size} needs {size} processes, and this is one of {started}; "
            f"start it with `{_LAUNCH.format(size)}`"
        )
    return ProcessGroup(size)


class CollectiveGuard:
    """Whether collective operations are allowed: only while every rank executes the same command.

    A collective operation that a single rank calls by hand would wait for ever, so it is an error.
    """

    def __init__(self):
        self.active = self.failed = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Context of a command that every rank executes; an exception leaves the ranks out of step."""
        if self.failed:
            raise RuntimeError("the ranks are out of step since an earlier failure; start them again")
        self.active = True
        try:
            yield
        except BaseException:
            self.failed = True
            raise
        finally:
            self.active = False

    def require(self) -> None:
        """Refuse a collective operation outside of a command.

        Raises:
            RuntimeError: no command is executed.
        """
        if not self.active:
            raise RuntimeError(
                "a tensor-parallel model runs only in its engine (chat, batch_chat, chat_messages, serve); "
                "load it in one process for generate, beam search or a forward by hand"
            )


class ProcessGroup:
    """The processes of a tensor-parallel model. Every rank constructs one at the same time.

    Args:
        size: number of ranks.
    Attributes:
        rank: number of this process; rank 0 leads.
        size: number of ranks.
        collectives: see `CollectiveGuard`.
        num_runners: model runners constructed so far; only the newest one may send commands.
    """

    def __init__(self, size: int):
        # Not fleet.init: its subgroups do not always form on a CPU (gloo).
        dist.init_parallel_env()
        self.rank, self.size = dist.get_rank(), size
        self.collectives = CollectiveGuard()
        self.num_runners = 0
        self._commands: queue.Queue = queue.Queue()
        self._arrived = threading.Semaphore(0)
        self._departed: set[int] = set()
        self._connections = self._connect()
        self._listeners = [
            threading.Thread(target=self._listen, args=arguments, name=f"rank {arguments[0]}", daemon=True)
            for arguments in self._connections.items()
        ]
        for listener in self._listeners:
            listener.start()
        atexit.register(self._send_goodbye)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @staticmethod
    def device() -> str:
        """The card that the launcher assigned to this rank."""
        return f"gpu:{dist.ParallelEnv().device_id}"

    # ------------------------------------------------------------------------------------------------- tensors
    def sum(self, x: paddle.Tensor) -> paddle.Tensor:
        """All-reduce `x` in place."""
        self.collectives.require()
        with self._death_first():
            dist.all_reduce(x)
        return x

    def gather(self, x: paddle.Tensor, axis: int) -> paddle.Tensor:
        """All-gather `x`: every rank's, concatenated in order of rank."""
        self.collectives.require()
        parts: list[paddle.Tensor] = []
        with self._death_first():
            dist.all_gather(parts, x.contiguous())
        return paddle.concat(parts, axis=axis)

    def broadcast(self, x: paddle.Tensor) -> None:
        """Broadcast rank 0's `x` into every rank's `x`."""
        self.collectives.require()
        with self._death_first():
            dist.broadcast(x, src=0)

    @contextmanager
    def _death_first(self) -> Iterator[None]:
        """Report the death of a peer rather than the error that it causes in a collective operation.

        The thread that listens to the peer ends this process; it may notice later than the operation fails.
        """
        try:
            yield
        except Exception:
            for listener in self._listeners:
                listener.join(_NOTICE_SECONDS)
            raise

    # ------------------------------------------------------------------------------------------------- commands
    def _connect(self) -> dict[int, Connection]:
        """Peer -> connection: rank 0 has one to each other rank, the others have one to rank 0."""
        address: list = [None]
        if self.leads:
            host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "127.0.0.1:0").rpartition(":")[0]
            key = secrets.token_bytes(16)
            listener = Listener((host, 0), backlog=self.size, authkey=key)
            address = [(listener.address, key)]
        dist.broadcast_object_list(address, src=0)
        if not self.leads:
            endpoint, key = address[0]
            connection = Client(endpoint, authkey=key)
            connection.send(self.rank)
            return {0: connection}
        connections: dict[int, Connection] = {}
        with listener:
            while len(connections) < self.size - 1:
                connection = listener.accept()
                connections[connection.recv()] = connection
        return dict(sorted(connections.items()))

    def barrier(self) -> None:
        """Wait until every rank is here, however long it takes."""
        if not self.leads:
            self._send(_ARRIVED)
        for _ in self._connections:
            self._arrived.acquire()
        if self.leads:
            self._send(_ARRIVED)

    def send_command(self, command) -> None:
        """Rank 0: send a command, any object that can be pickled, to every other rank.

        Raises:
            RuntimeError: a rank has ended its program.
        """
        if self._departed:
            raise RuntimeError(
                f"rank {min(self._departed)} of {self.size} has ended its program; start the ranks again"
            )
        self._send(command)

    def next_command(self):
        """Other ranks: wait for rank 0's next command; None: shutdown.

        Raises:
            RuntimeError: rank 0 has ended its program.
        """
        command = self._commands.get()
        if command == _GOODBYE:
            raise RuntimeError(f"rank 0 of {self.size} has ended its program; start the ranks again")
        return None if command == _SHUTDOWN else command

    def shutdown(self) -> None:
        """Rank 0: end the other ranks' command loops."""
        self.send_command(_SHUTDOWN)

    def _send(self, message) -> None:
        for connection in self._connections.values():
            connection.send(message)

    def _listen(self, peer: int, connection: Connection) -> None:
        """Receive a peer's messages until it ends."""
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                if peer not in self._departed:
                    self._abort(peer)
                return
            if message == _ARRIVED:
                self._arrived.release()
                continue
            if message == _GOODBYE:
                self._departed.add(peer)
                if self.collectives.active:
                    self._abort(peer)
            self._commands.put(message)

    def _abort(self, peer: int) -> None:
        """End this process at once: its main thread may wait in a collective operation, which nothing interrupts."""
        print(f"error: rank {peer} has ended, so rank {self.rank} of {self.size} ends too", file=sys.stderr, flush=True)
        os._exit(1)

    def _send_goodbye(self) -> None:
        """At exit: announce a regular end to the peers. After a failure they end too, when the connection breaks."""
        if not self.collectives.failed:
            with suppress(OSError):  # the peer has ended first
                self._send(_GOODBYE)
