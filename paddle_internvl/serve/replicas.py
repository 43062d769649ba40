"""Replicas of the model through Ray Serve, behind the port of this process.

In: a checkpoint, settings, a number of replicas. Out: a server that runs until a signal. Each `replica` is a process
with an engine and the application of a single server; Ray routes requests to replicas, checks their health and restarts
them. This process is the front: the port, and the guards of a single server (keys, limits, timeouts, draining). Ray's
own HTTP server is not used.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import anyio

from paddle_internvl.scale import cluster
from paddle_internvl.serve import forwarding, server
from paddle_internvl.serve.accesslog import log
from paddle_internvl.serve.forwarding import NoReplicaError, ReplicaLostError, Replicas
from paddle_internvl.serve.replica import ReplicaProcess
from paddle_internvl.serve.settings import Settings

_DEPLOYMENT = "replica"
_CLOSE_TIMEOUT = 10  # seconds in which replicas end their streams with an error
# seconds between two health checks of a replica, and timeout of one
_HEALTH_PERIOD, _HEALTH_TIMEOUT = 5, 60


class RayReplicas(Replicas):
    """The replicas of a Ray Serve application.

    Args:
        handle: of the deployment.
        name: of the application.
        accept_timeout: seconds until a replica accepts a request.
    """

    def __init__(self, handle, name: str, accept_timeout: float):
        self._stream, self._handle, self._name = handle.options(stream=True), handle, name
        self._accept_timeout = accept_timeout

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """See `Replicas`."""
        from ray.exceptions import RayActorError

        call = self._stream.answer.remote(scope, body)
        try:
            await self._until_accepted(call)
            async for message in call:
                yield message
        except RayActorError as error:
            raise ReplicaLostError from error
        finally:
            call.cancel()

    async def _until_accepted(self, call) -> None:
        try:
            with anyio.fail_after(self._accept_timeout):
                await anext(call)
        except TimeoutError as error:
            raise NoReplicaError from error

    async def running(self) -> int:
        """See `Replicas`."""
        from ray import serve

        status = await asyncio.to_thread(serve.status)
        return status.applications[self._name].deployments[_DEPLOYMENT].replica_states.get("RUNNING", 0)

    async def pages(self) -> list[bytes]:
        """See `Replicas`."""
        return await self._handle.broadcast("page").results_async(timeout_s=_CLOSE_TIMEOUT)

    def close(self) -> None:
        """See `Replicas`."""
        self._handle.broadcast("close").results(timeout_s=_CLOSE_TIMEOUT)

    def delete(self) -> None:
        """Stop the replicas."""
        from ray import serve

        serve.delete(self._name)


def run(checkpoint: str, settings: Settings, port: socket.socket, count: int, address: str | None = None) -> None:
    """Serve on an open port until a signal.

    Args:
        checkpoint: folder or hub id.
        settings: of each replica, and of the front.
        port: of the front.
        count: number of replicas.
        address: of a Ray cluster; None: start one on this machine.
    Raises:
        ImportError: Ray is not installed.
        ValueError: no such cluster, a checkpoint that can't be loaded, or too many replicas.
    """
    with cluster.joined(address, count, service=True) as ray:
        replicas = _deploy(ray, checkpoint, settings, count)
        try:
            _serve(replicas, settings, port, count)
        finally:
            if address is not None:  # else the replicas end with their cluster
                replicas.delete()


def _deploy(ray, checkpoint: str, settings: Settings, count: int) -> RayReplicas:
    from ray import serve
    from ray.serve.schema import LoggingConfig

    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    name = f"paddle_internvl {settings.served_model_name}"
    deployment = serve.deployment(
        ReplicaProcess,
        name=_DEPLOYMENT,
        num_replicas=count,
        max_ongoing_requests=settings.max_concurrent_requests,
        health_check_period_s=_HEALTH_PERIOD,
        health_check_timeout_s=_HEALTH_TIMEOUT,
        graceful_shutdown_timeout_s=1,  # the front has let the requests end
        max_constructor_retry_count=1,
        ray_actor_options=cluster.resources_per_process(ray, count, settings.device),
        logging_config=quiet,
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        handle = serve.run(deployment.bind(*_replica_arguments(checkpoint, settings)), name=name, route_prefix=None)
    except RuntimeError as error:
        deployments = serve.status().applications[name].deployments.values()
        text = "\n".join(deployment.message for deployment in deployments) or str(error)
        raise ValueError(f"the replicas do not start: {cluster.error_line(text)}") from error
    return RayReplicas(handle, name, settings.queue_timeout)


def _replica_arguments(checkpoint: str, settings: Settings) -> tuple[str, Settings]:
    """A replica's arguments: absolute paths, and no API keys, which the front checks."""
    path = Path(checkpoint).expanduser()
    settings = replace(settings, api_keys=(), allow_origins=())
    if settings.allowed_local_media_path is not None:
        folder = settings.media_limits().allowed_local_path
        settings = replace(settings, allowed_local_media_path=str(folder))
    return str(path.resolve()) if path.exists() else checkpoint, settings


def _serve(replicas: RayReplicas, settings: Settings, port: socket.socket, count: int) -> None:
    front_settings = replace(
        settings,
        max_concurrent_requests=count * settings.max_concurrent_requests,
        max_pending_bytes=count * settings.max_pending_bytes,
    )
    server.log_address(settings, port, f" by {count} replicas")
    forwarding.build(replicas, front_settings).run(sockets=[port])
    log.info("closed")
