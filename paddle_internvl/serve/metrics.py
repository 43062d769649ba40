"""What Prometheus reads: requests, times and tokens, and what the engine is doing. No text of any request.

In: notes of the layers, and the engine's `stats`. Out: the exposition format. Every server has a registry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX = "paddle_internvl_"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
# field of the engine's stats -> what it is
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
    def __init__(self, engine):
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for family, names in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, meaning in names.items():
                yield family(f"{_PREFIX}engine_{name}", meaning, value=getattr(stats, name))


class Metrics:
    """See the module.

    Args:
        engine: an `EngineThread`. in_work: how many requests are being answered now.
    """

    def __init__(self, engine, in_work: Callable[[], int]):
        self.registry = r = CollectorRegistry()
        self._requests = Counter(f"{_PREFIX}requests", "Requests by route and status.", ["route", "status"], registry=r)
        self._seconds = Histogram(
            f"{_PREFIX}request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS, registry=r
        )
        self._first = Histogram(
            f"{_PREFIX}first_token_seconds", "Seconds from the engine's door to the first token.", buckets=_SECONDS,
            registry=r,
        )  # fmt: skip
        self._between = Histogram(
            f"{_PREFIX}between_pieces_seconds", "Seconds between two pieces of an answer.", buckets=_BETWEEN, registry=r
        )
        self._gone = Counter(f"{_PREFIX}disconnects", "Requests whose client left before their end.", registry=r)
        Gauge(f"{_PREFIX}requests_in_work", "Requests being answered.", registry=r).set_function(in_work)
        r.register(_EngineCollector(engine))

    def request(self, route: str, status: int, seconds: float, gone: bool) -> None:
        """Note the end of a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if gone:
            self._gone.inc()

    def piece(self, seconds: float, first: bool) -> None:
        """Note that a piece came, so long after the one before."""
        (self._first if first else self._between).observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
