"""Prometheus metrics of several replicas summed to one page, under the names of a single server.

In: pages in the exposition format. Out: one page. Counters, histograms and gauges of the replicas are summed (a counter
falls when a replica ends, which Prometheus takes for a restart). Metrics of requests are the front's alone, because
some requests never reach a replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

_FRONT_ONLY = (
    "paddle_internvl_requests",
    "paddle_internvl_request_seconds",
    "paddle_internvl_disconnects",
    "paddle_internvl_requests_in_work",
)
_CREATED = "_created"  # start time of a counter, which is not summed


def merged(front: bytes, replicas: Sequence[bytes]) -> bytes:
    """The metrics page of a front and its replicas."""
    families = [family for page in replicas for family in _families(page) if family.name not in _FRONT_ONLY]
    return generate_latest(_Families(_summed([*_families(front), *families])))


def _families(page: bytes) -> Iterable[Metric]:
    families = text_string_to_metric_families(page.decode())
    return [family for family in families if not family.name.endswith(_CREATED)]


def _summed(families: Iterable[Metric]) -> list[Metric]:
    sums: dict[str, Metric] = {}
    values: dict[str, dict] = {}
    for family in families:
        sums.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        of_family = values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            of_family[key] = of_family.get(key, 0.0) + sample.value
    for name, of_family in values.items():
        for (sample, labels), value in of_family.items():
            sums[name].add_sample(sample, dict(labels), value)
    return list(sums.values())


class _Families:
    """A registry for `generate_latest`."""

    def __init__(self, families: list[Metric]):
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
