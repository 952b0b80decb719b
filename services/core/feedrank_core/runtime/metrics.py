"""Builds Prometheus metrics from the registry in contracts: no other file names a metric."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from feedrank_core.contracts.metrics import METRICS, Kind, MetricSpec

disable_created_metrics()  # a second series beside each, which no registry names
EXPOSITION_TYPE = CONTENT_TYPE_LATEST
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder that workers of one service share; set before they import this module."""


class Metrics:
    """The metrics of one service, all created at the start so that each is scraped from then on.

    `histogram("feed_seconds")` is `feedrank_<service>_feed_seconds`; an unknown name raises
    KeyError.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        for spec in METRICS:
            if spec.service != service:
                continue
            if spec.kind is Kind.HISTOGRAM:
                self._metrics[spec.name] = Histogram(
                    spec.full_name,
                    spec.help,
                    spec.labels,
                    buckets=spec.buckets,
                    registry=self.registry,
                )
            else:
                self._metrics[spec.name] = _counter_or_gauge(spec, self.registry)

    def counter(self, name: str) -> Counter:
        """A counter of this service."""
        metric = self._metrics[name]
        assert isinstance(metric, Counter), name
        return metric

    def gauge(self, name: str) -> Gauge:
        """A gauge of this service."""
        metric = self._metrics[name]
        assert isinstance(metric, Gauge), name
        return metric

    def histogram(self, name: str) -> Histogram:
        """A histogram of this service."""
        metric = self._metrics[name]
        assert isinstance(metric, Histogram), name
        return metric

    def exposition(self) -> bytes:
        """What `/metrics` answers: summed over the workers where there are several."""
        # Not the variable: Feast sets it too, once metrics are kept in this process alone.
        if ValueClass is MutexValue:
            return generate_latest(self.registry)
        summed = CollectorRegistry()
        MultiProcessCollector(summed)
        return generate_latest(summed)


def _counter_or_gauge(spec: MetricSpec, registry: CollectorRegistry) -> Counter | Gauge:
    if spec.kind is Kind.COUNTER:
        return Counter(spec.full_name, spec.help, spec.labels, registry=registry)
    return Gauge(
        spec.full_name, spec.help, spec.labels, registry=registry, multiprocess_mode="mostrecent"
    )
