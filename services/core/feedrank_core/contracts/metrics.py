"""The registry of metrics: every name and label that any service emits, and nothing else.

Full names are `feedrank_<service>_<name>`. Labels have few values: never an id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0,
)  # fmt: skip
FRESHNESS_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 3_600.0)


class Kind(StrEnum):
    """Prometheus metric kinds in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class MetricSpec:
    """One metric. Units stand in the name (`_seconds`, `_bytes`, `_total`)."""

    service: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as scraped."""
        return f"feedrank_{self.service}_{self.name}"


def _counter(service: str, name: str, text: str, *labels: str) -> MetricSpec:
    return MetricSpec(service, name, Kind.COUNTER, text, labels)


def _gauge(service: str, name: str, text: str, *labels: str) -> MetricSpec:
    return MetricSpec(service, name, Kind.GAUGE, text, labels)


def _histogram(
    service: str, name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S
) -> MetricSpec:
    return MetricSpec(service, name, Kind.HISTOGRAM, text, labels, buckets)


METRICS: tuple[MetricSpec, ...] = (
    _counter("ingestion", "accepted_total", "Records the bus took.", "topic"),
    _counter("ingestion", "rejected_total", "Records refused at the door.", "kind", "reason"),
    _counter("ingestion", "turned_away_total", "Requests answered 408, 429 or 503.", "reason"),
    _gauge("ingestion", "waiting_bytes", "Bodies of the requests not yet answered."),
    _histogram("ingestion", "publish_seconds", "Time to hold one request on the bus."),
    _counter("ingestion", "sink_rows_total", "Rows added to the lake.", "topic"),
    _counter("ingestion", "sink_rejected_total", "Records sent to the dead letters.", "topic"),
    _counter("ingestion", "sink_lost_total", "Records gone before the lake had them.", "topic"),
    _counter("ingestion", "sink_failures_total", "Batches that the lake or bus refused at first."),
    _gauge("ingestion", "sink_lag_records", "Records on the bus and not in the lake.", "topic"),
    _counter("ingestion", "user_changes_total", "Orders that the lake has settled.", "kind"),
    _gauge("ingestion", "user_changes_waiting", "Orders applied and not yet settled."),
    _histogram("ingestion", "sink_append_seconds", "Time to add one batch to the lake.", "topic"),
    _counter("gateway", "requests_total", "Feeds answered.", "surface", "status"),
    _histogram("gateway", "feed_seconds", "Time to answer one feed."),
    _counter("gateway", "degraded_total", "Feeds made without a part, by part.", "reason"),
    _counter("gateway", "slates_published_total", "Slates that the bus holds."),
    _counter("gateway", "slates_dropped_total", "Slates that never reached the bus."),
    _counter("gateway", "bundle_swaps_total", "Bundles taken up or refused.", "outcome"),
    _counter("feature_store", "events_total", "Records of the bus that were folded.", "topic"),
    _counter("feature_store", "imported_total", "Rows of the lake that were folded."),
    _counter("feature_store", "dead_lettered_total", "Records that could not be read.", "topic"),
    _counter("feature_store", "lost_total", "Records that neither bus nor lake had.", "topic"),
    _counter("feature_store", "item_stats_total", "Items whose statistics were published."),
    _gauge("feature_store", "lag_records", "Records on the bus not yet folded."),
    _gauge("feature_store", "behind_seconds", "Age of the last record when it was folded."),
    _gauge("feature_store", "waiting_readers", "Readers folded and not yet shown online."),
    _gauge("feature_store", "state_bytes", "Size of the state on disk."),
    _gauge("feature_store", "state_entries", "Entities in the state.", "kind"),
    _histogram("feature_store", "fold_seconds", "Time to fold one poll."),
    _histogram("feature_store", "checkpoint_seconds", "Time to save the state."),
    _histogram("feature_store", "write_seconds", "Time to show one page of readers online."),
    _histogram("feature_store", "item_stats_seconds", "Time to publish one page of items."),
    _histogram(
        "feature_store",
        "freshness_seconds",
        "From the acceptance of an event to its being read online.",
        buckets=FRESHNESS_BUCKETS_S,
    ),
    _gauge("trainer", "pairs", "Examples of the run."),
    _counter("trainer", "epochs_total", "Passes over the examples."),
    _gauge("trainer", "steps", "Batches that the towers have learned from."),
    _gauge("trainer", "loss", "Mean training loss of the last epoch; 0 before it."),
    _gauge("trainer", "validation_ndcg", "NDCG@10 of the last epoch; 0 without a later slice."),
    _gauge("batch_ranker", "readers", "Readers of the run."),
    _gauge("batch_ranker", "readers_ranked", "Readers whose candidates are written."),
    _counter("batch_ranker", "readers_refilled_total", "Readers whose lost candidates came back."),
    _gauge(
        "batch_ranker",
        "recall",
        "Share of the exact best that the index finds; 0 until audited.",
    ),
    _counter("batch_ranker", "values_retired_total", "Candidates of older bundles let go."),
)
