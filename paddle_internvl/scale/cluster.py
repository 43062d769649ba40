"""Ray cluster of a command: started on this machine and stopped at the end, or one that runs already.

In: an address or none. Out: the `ray` module, connected.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from paddle_internvl import runtime

INSTALL = 'pip install "ray[data,serve]==2.60.*"'
_OBJECT_STORE = 512 << 20  # bytes of shared memory; the rest spills to Ray's folder on disk
_CONNECT_TIMEOUT = 10  # seconds
_STARTS, _SLOW_START = 4, "timed out during startup"
_EXCEPTION = re.compile(r"(\w+\.)*\w*(Error|Exception): ")
_MAX_LINE = 200  # characters
_WITH_TOKEN = "RAY_AUTH_MODE=token in the environment"  # without it Ray sends no token to a given address


@contextmanager
def joined(address: str | None, processes: int, service: bool = False) -> Iterator[ModuleType]:
    """The `ray` module, connected to a cluster.

    Args:
        address: of a cluster ('auto', 'host:6379', 'ray://host:10001'); None: start one on this machine, whose ports
            require its token.
        processes: that a started cluster must have room for.
        service: show the output of workers, and let only this process handle SIGTERM.
    Raises:
        ImportError: Ray is not installed.
        ValueError: no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"this needs Ray, which is not installed: {INSTALL}") from error
    if ray.is_initialized():
        yield ray
        return
    options = {"log_to_driver": service, "logging_level": logging.WARNING, "include_dashboard": False}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports to Ray's developers
        cores = max(runtime.cpu_cores(), processes)
        with _block_sigterm() if service else nullcontext():
            _start(ray, num_cpus=cores, object_store_memory=_OBJECT_STORE, **options)
    else:
        options.pop("include_dashboard")
        try:
            _require_connection(address)
            ray.init(address, **options)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"no Ray cluster at {address}: {error}; one with a token needs {_WITH_TOKEN}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: ModuleType, **options) -> None:
    """Start a cluster on this machine; again if Ray gives up, which it does after 30 seconds on a busy machine."""
    for attempt in range(_STARTS):
        try:
            ray.init("local", **options)
            return
        except Exception as error:  # of no class of its own
            if _SLOW_START not in str(error) or attempt == _STARTS - 1:
                raise
            ray.shutdown()


@contextmanager
def _block_sigterm() -> Iterator[None]:
    """Block SIGTERM in the processes that are started meanwhile.

    Service managers send SIGTERM to every process of a service; only the command handles it, and stops the cluster
    after its last request. (Ray then takes seconds longer to end.)
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _require_connection(address: str) -> None:
    """Connect to the address once: Ray itself retries for many minutes.

    Raises:
        OSError: no connection.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()


def error_line(message: str) -> str:
    """The line of Ray's error message that names the error: most of the message is a traceback.

    Args:
        message: of a Ray exception or a deployment.
    Returns:
        The last line that begins with an exception's name, else the last line, cut to 200 characters; "" of no text.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return ([line for line in lines if _EXCEPTION.match(line)] or lines or [""])[-1][:_MAX_LINE]


def resources_per_process(ray: ModuleType, processes: int, device: str | None) -> dict[str, float]:
    """Cores and cards of each of several equal processes, as options of Ray.

    Ray starts each process with as many threads as it has cores.

    Args:
        ray: connected to a cluster.
        processes: number of processes.
        device: 'cpu', 'gpu' or None: cards where the cluster has some.

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
