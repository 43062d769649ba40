"""Process groups on CPUs (gloo): a rendezvous of its own for each group.

Paddle 3.3.1 hands every gloo group the same store of addresses, so that with more than two ranks a later group may read
the addresses of an earlier one; then it fails or waits for ever.
"""

from __future__ import annotations

import os
import socket
from functools import cache

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
