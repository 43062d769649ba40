"""A Ray cluster for the length of a command: one of this machine's own, or one that runs already.

In: an address or none. Out: the `ray` module, connected. What the command started it ends; what was there stays.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from paddle_internvl import runtime

INSTALL = 'pip install "ray[data,serve]==2.60.*"'
_OBJECT_STORE = 512 << 20  # bytes of shared memory; what does not fit goes to Ray's folder on disk
_ANSWER_SECONDS = 10
_WITH_TOKEN = "RAY_AUTH_MODE=token in the environment"  # Ray sends it to no address by itself


@contextmanager
def joined(address: str | None, processes: int, service: bool = False) -> Iterator[ModuleType]:
    """The `ray` module, connected to a cluster.

    Args:
        address: of a cluster ('auto', 'host:6379', 'ray://host:10001'); None: one of this machine for the time being,
            whose ports take only those who know its token. processes: that it must have room for, on this machine.
        service: show what workers print, and let SIGTERM be heard by this process alone.
    Raises:
        ImportError: Ray is not installed. ValueError: no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"this needs Ray, which is not installed: {INSTALL}") from error
    if ray.is_initialized():
        yield ray
        return
    how = {"log_to_driver": service, "logging_level": logging.WARNING, "include_dashboard": False}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
        cores = max(runtime.cpu_cores(), processes)
        with _deaf_to_sigterm() if service else nullcontext():
            ray.init("local", num_cpus=cores, object_store_memory=_OBJECT_STORE, **how)
    else:
        how.pop("include_dashboard")
        try:
            _require_answer(address)
            ray.init(address, **how)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"no Ray cluster at {address}: {error}; one with a token needs {_WITH_TOKEN}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    """What is started meanwhile does not hear SIGTERM: service managers send it to every process of a service, but it
    is for the command alone, which ends the cluster once its work has ended. (Ray then takes seconds longer to end.)"""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _require_answer(address: str) -> None:
    """Ask a port for a sign of life: Ray itself tries for many minutes.

    Raises:
        OSError: there is none.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()


def share(ray: ModuleType, processes: int, device: str | None) -> dict[str, float]:
    """The cores and cards that each of some equal processes may claim, as Ray's options name them.

    Ray starts each with as many threads as it has cores.

    Raises:
        ValueError: more processes than cards.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise ValueError("the Ray cluster has no machine with free cores")
    cards = int(sum(node.get("GPU", 0) for node in nodes))
    if device not in (None, "cpu", "gpu"):
        raise ValueError(f"device={device!r} names one card, but every process takes another; use 'gpu' or 'cpu'")
    if device == "gpu" or (device is None and cards):
        if cards < processes:
            raise ValueError(
                f"{processes} processes need a card each, but the cluster has {cards}; or use device 'cpu'"
            )
        return {"num_cpus": 1, "num_gpus": 1}
    on_each = -(-processes // len(nodes))
    return {"num_cpus": max(1, int(min(node["CPU"] for node in nodes)) // on_each)}
