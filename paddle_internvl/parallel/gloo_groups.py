"""Process groups on CPUs (gloo): a rendezvous of its own for each group, and a barrier that waits for slow ranks.

Paddle 3.3.1 hands every gloo group the same store of addresses, so that with more than two ranks a later group may read
the addresses of an earlier one; then it fails or waits for ever. A rank that waits for another one in a collective
operation of gloo ends after 30 seconds.
"""

from __future__ import annotations

import os
import signal
import socket
from functools import cache
from itertools import count

from paddle import distributed
from paddle.base import core
from paddle.distributed import collective

_TIMEOUT = 300  # seconds until every rank of a group has come


@cache
def separate_rendezvous() -> None:
    """Give every gloo group that this process joins from now on a store of its own."""
    original = collective._new_process_group_impl

    def new_process_group(backend, store, rank, world_size, group_name, pg_options, group_id=0, **options):
        if backend == "gloo" and group_id and world_size > 1:
            store = _group_store(store, rank, world_size, f"gloo_group/{group_id}")
        return original(backend, store, rank, world_size, group_name, pg_options, group_id, **options)

    collective._new_process_group_impl = new_process_group


def wait_for_ranks() -> None:
    """Barrier of all ranks; does nothing without a process group. On gloo a rank may be many minutes late."""
    if not distributed.is_initialized():
        return
    if distributed.get_backend() != "GLOO":
        distributed.barrier()
        return
    store, key = core.create_or_get_global_tcp_store(), f"barrier/{next(_barriers)}"
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one that arrives would break off the store's answer
    try:
        if store.add(key, 1) == distributed.get_world_size():
            store.set(f"{key}/all", "here")
        store.wait(f"{key}/all")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_barriers = count()  # every rank passes the same barriers in the same order


def _group_store(store: core.TCPStore, rank: int, world_size: int, key: str) -> core.TCPStore:
    """A store for one group; rank 0 of the group serves it and publishes its address in the store of all ranks."""
    if rank == 0:
        host, port = os.environ.get("POD_IP", "127.0.0.1"), _free_port()
        store.set(key, f"{host}:{port}")  # first: the server's constructor waits for its clients
        group = core.TCPStore(host, port, True, world_size, _TIMEOUT)
    else:
        host, port = bytes(store.get(key)).decode().rsplit(":", 1)
        group = core.TCPStore(host, int(port), False, world_size, _TIMEOUT)
    _stores.append(group)
    return group


_stores: list[core.TCPStore] = []  # a store serves its group as long as it lives


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
