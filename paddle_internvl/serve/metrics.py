"""Prometheus metrics: requests, latencies, tokens and the engine's state.

In: events of the server, and the engine's `stats`. Out: the exposition format. Every server has its own registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX = "paddle_internvl_"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
# field of `EngineStats` -> help text
_GAUGES = {
    "waiting": "Answers that wait for the engine.",
    "running": "Answers being generated.",
    "prefilling": "Answers whose prompt is being read.",
    "blocks_used": "Blocks of the KV cache in use.",
    "blocks_total": "Blocks of the KV cache.",
}
_COUNTERS = {
    "prompt_tokens": "Tokens of prompts that were read.",
    "reused_tokens": "Tokens of prompts that were found in the KV cache.",
    "generated_tokens": "Tokens generated.",
    "vision_tiles": "Tiles run through the vision tower.",
    "finished": "Answers that came to their end.",
    "cancelled": "Answers cancelled.",
    "failed": "Answers that failed in the engine.",
    "out_of_memory": "Answers that failed for want of memory.",
}


class _EngineCollector(Collector):
    def __init__(self, engine_thread):
        self._engine = engine_thread

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for family, names in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, help_text in names.items():
                yield family(f"{_PREFIX}engine_{name}", help_text, value=getattr(stats, name))


class Metrics:
    """The metrics of one server.

    Args:
        in_work: the number of requests that are being answered.
        engine_thread: an `EngineThread`; None: the server has no engine of its own.
    """

    def __init__(self, in_work: Callable[[], int], engine_thread=None):
        self.registry = r = CollectorRegistry()
        self._requests = Counter(f"{_PREFIX}requests", "Requests by route and status.", ["route", "status"], registry=r)
        self._seconds = Histogram(
            f"{_PREFIX}request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS, registry=r
        )
        self._first = Histogram(
            f"{_PREFIX}first_token_seconds", "Seconds from the engine's door to the first token.", buckets=_SECONDS,
            registry=r,
        )  # fmt: skip
        self._next = Histogram(
            f"{_PREFIX}between_pieces_seconds",
            "Seconds between two pieces of an answer.",
            buckets=_TOKEN_SECONDS,
            registry=r,
        )
        self._disconnects = Counter(f"{_PREFIX}disconnects", "Requests whose client left before their end.", registry=r)
        Gauge(f"{_PREFIX}requests_in_work", "Requests being answered.", registry=r).set_function(in_work)
        if engine_thread is not None:
            r.register(_EngineCollector(engine_thread))

    def request(self, route: str, status: int, seconds: float, client_gone: bool) -> None:
        """Count a finished request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if client_gone:
            self._disconnects.inc()

    def piece(self, seconds: float, first: bool) -> None:
        """Observe the time to the first piece of an answer, or between two pieces."""
        (self._first if first else self._next).observe(seconds)

    def page(self) -> bytes:
        """The metrics in the exposition format."""
        return generate_latest(self.registry)
