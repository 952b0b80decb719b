"""Publishes how items fare: those that changed, each once in a while, as they are now."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Lock

import structlog
from feedrank_core.contracts.features import Priors
from feedrank_core.contracts.topics import ITEM_STATS
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing, Publisher
from feedrank_core.runtime.metrics import Metrics

from feedrank_feature_store.stream.showing import gather_items, item_stats
from feedrank_feature_store.stream.state import State

log = structlog.get_logger(__name__)

PAGE = 500
"""Items of one publish."""


class ItemStatistics:
    """Takes marks from the state's outbox under `lock`, publishes without it, in a thread."""

    def __init__(
        self,
        state: State,
        lock: Lock,
        publisher: Publisher,
        priors: Callable[[], Priors],
        metrics: Metrics,
        *,
        every_s: float,
    ) -> None:
        self._state, self._lock = state, lock
        self._publisher, self._priors = publisher, priors
        self._metrics, self._every_s = metrics, every_s

    def run(self, stopping: Event) -> None:
        """Publish until told to stop. Blocks."""
        while not stopping.wait(self._every_s):
            try:
                while not stopping.is_set() and self.step():
                    pass
            except BusUnavailableError as error:
                log.warning("waiting", reason="the bus does not answer", error=str(error))

    def step(self) -> int:
        """Publish one page; how many items it had. Raises: BusUnavailableError."""
        outbox = self._state.waiting_items
        with self._lock:
            marks = outbox.take(PAGE)
            views = gather_items(self._state, list(marks))
        started = time.perf_counter()
        try:
            priors, now = self._priors(), datetime.now(UTC)
            stats = [item_stats(view, now, priors) for view in views]
            self._publisher.publish(
                ITEM_STATS, [Outgoing(s.item_id, s.model_dump_json().encode()) for s in stats]
            )
        except BaseException:
            with self._lock:
                outbox.again(marks)
            raise
        with self._lock:
            outbox.done(marks)
        self._metrics.counter("item_stats_total").inc(len(stats))
        if stats:
            seconds = time.perf_counter() - started
            self._metrics.histogram("item_stats_seconds").observe(seconds)
        return len(marks)
