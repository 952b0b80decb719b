"""Builds Prometheus metrics from the registry in contracts: no other file names a metric."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from feedrank_core.contracts.metrics import METRICS, Kind


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
                kind = Counter if spec.kind is Kind.COUNTER else Gauge
                self._metrics[spec.name] = kind(
                    spec.full_name, spec.help, spec.labels, registry=self.registry
                )

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
        """What `/metrics` answers."""
        return generate_latest(self.registry)
