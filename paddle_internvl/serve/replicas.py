"""Several processes with a model each, behind one port, through Ray Serve.

In: a checkpoint, settings, how many. Out: a server that runs until it is told to stop. Each `replica` is a process with
an engine and the very same application; Ray spreads requests over them, sees whether they live and starts those anew
that died. Before them stands this process, with the port and the guards of a single server: keys, limits, time limits,
draining. Ray's own HTTP server is not used.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from paddle_internvl.scale import cluster
from paddle_internvl.serve import forwarding
from paddle_internvl.serve.accesslog import log
from paddle_internvl.serve.forwarding import NoReplicaError, ReplicaLostError, Replicas
from paddle_internvl.serve.replica import Replica
from paddle_internvl.serve.settings import Settings

_DEPLOYMENT = "replica"
_LAST_WORDS = 10  # seconds in which replicas tell their streams that they end
# seconds: how often Ray asks a replica whether its engine goes on, and how long it may take to say so
_HEALTH_PERIOD, _HEALTH_TIMEOUT = 5, 60
_ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception): ")
_LONGEST_REASON = 200  # characters


class RayReplicas(Replicas):
    """The replicas of a Ray Serve application.

    Args:
        handle: of the deployment. name: of the application.
    """

    def __init__(self, handle, name: str, settings: Settings):
        super().__init__(settings.session_len)
        self._stream, self._handle, self._name = handle.options(stream=True), handle, name
        self._patience = settings.queue_timeout

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """See `Replicas`."""
        from ray.exceptions import RayActorError

        call = self._stream.answer.remote(scope, body)
        try:
            await self._until_taken(call)
            async for message in call:
                yield message
        except RayActorError as error:
            raise ReplicaLostError from error
        finally:
            call.cancel()

    async def _until_taken(self, call) -> None:
        try:
            with anyio.fail_after(self._patience):
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
        return await self._handle.broadcast("page").results_async(timeout_s=_LAST_WORDS)

    def close(self) -> None:
        """See `Replicas`."""
        self._handle.broadcast("close").results(timeout_s=_LAST_WORDS)

    def delete(self) -> None:
        """End the replicas."""
        from ray import serve

        serve.delete(self._name)


def run(checkpoint: str, settings: Settings, port: socket.socket, count: int, address: str | None = None) -> None:
    """Serve on an open port until a signal ends it.

    Args:
        settings: of each replica; those of the front too. count: replicas. address: of a Ray cluster; None: one of this
            machine for the time being.
    Raises:
        ImportError: Ray is not installed. ValueError: a cluster, checkpoint or number that can't be.
    """
    with cluster.joined(address, count, service=True) as ray:
        replicas = _deploy(ray, checkpoint, settings, count)
        try:
            _serve(replicas, settings, port, count)
        finally:
            if address is not None:  # else they end with their cluster
                replicas.delete()


def _deploy(ray, checkpoint: str, settings: Settings, count: int) -> RayReplicas:
    from ray import serve
    from ray.serve.schema import LoggingConfig

    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    name = f"paddle_internvl {settings.served_model_name}"
    deployment = serve.deployment(
        Replica,
        name=_DEPLOYMENT,
        num_replicas=count,
        max_ongoing_requests=settings.max_concurrent_requests,
        health_check_period_s=_HEALTH_PERIOD,
        health_check_timeout_s=_HEALTH_TIMEOUT,
        graceful_shutdown_timeout_s=1,  # the front has let the requests end
        max_constructor_retry_count=1,
        ray_actor_options=cluster.share(ray, count, settings.device),
        logging_config=quiet,
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        handle = serve.run(deployment.bind(*_for_elsewhere(checkpoint, settings)), name=name, route_prefix=None)
    except RuntimeError as error:
        told = [each.message for each in serve.status().applications[name].deployments.values()]
        raise ValueError(f"the replicas do not start: {_reason(told or [str(error)])}") from error
    return RayReplicas(handle, name, settings)


def _for_elsewhere(checkpoint: str, settings: Settings) -> tuple[str, Settings]:
    """A replica's arguments: paths that do not depend on where it starts, and no secret, for the front has the keys."""
    path = Path(checkpoint).expanduser()
    own = replace(settings, api_keys=(), allow_origins=())
    if settings.allowed_local_media_path is not None:
        own = replace(own, allowed_local_media_path=str(settings.media_limits().allowed_local_path))
    return str(path.resolve()) if path.exists() else checkpoint, own


def _reason(told: Sequence[str]) -> str:
    """The last line of what Ray tells that names an error, of whose traceback the rest is."""
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    return ([line for line in lines if _ERROR.match(line)] or lines)[-1][:_LONGEST_REASON]


def _serve(replicas: RayReplicas, settings: Settings, port: socket.socket, count: int) -> None:
    of_all = replace(
        settings,
        max_concurrent_requests=count * settings.max_concurrent_requests,
        max_pending_bytes=count * settings.max_pending_bytes,
    )
    host, number = port.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    log.info("%s is served on http://%s:%d/v1 by %d replicas", settings.served_model_name, host, number, count)
    if settings.open_to_strangers:
        log.warning("%s is open to other machines and asks for no key; set --api-keys", settings.server_name)
    forwarding.build(replicas, of_all).run(sockets=[port])
    log.info("closed")
