"""Follows events and profiles; keeps what each reader has seen and its segment current."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Event
from typing import TypeVar

import redis
import structlog
from feedrank_core.contracts.events import Impression, Interaction
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.topics import IMPRESSIONS, USERS
from feedrank_core.contracts.users import User
from feedrank_core.runtime.bus import BusUnavailableError, Consumer, LeaseLostError, Record
from feedrank_core.runtime.metrics import Metrics
from pydantic import BaseModel, ValidationError

from feedrank_feature_store.seen import SeenWriter
from feedrank_feature_store.segments import SegmentWriter

log = structlog.get_logger(__name__)

Read = TypeVar("Read", bound=BaseModel)

GROUP = "feature_store"
POLL_S = 1.0
PAUSE_S = 0.5
"""Wait before the next try while the bus or the cache is away."""


class ReaderFollower:
    """One poll at a time: read, write to the cache, commit. Memory holds one poll's events."""

    def __init__(
        self,
        consumer: Consumer,
        seen: SeenWriter,
        segments: SegmentWriter,
        metrics: Metrics,
        *,
        max_records: int,
    ) -> None:
        self.consumer = consumer
        self.seen, self.segments = seen, segments
        self.metrics = metrics
        self.max_records = max_records
        self.trouble: str | None = "has not read from the bus yet"

    def run(self, stopping: Event) -> None:
        """Follow until told to stop. Blocks. Nothing is committed before the cache holds it."""
        while not stopping.is_set():
            try:
                records = self.consumer.poll(max_records=self.max_records, timeout_s=POLL_S)
                self._write(records, stopping)
                self.metrics.gauge("lag_records").set(sum(self.consumer.lag().values()))
                self.trouble = None
            except LeaseLostError as error:
                log.warning("lease_lost", reason=str(error))
            except BusUnavailableError as error:
                self._report("the bus does not answer", error)
                stopping.wait(PAUSE_S)

    def _write(self, records: Sequence[Record], stopping: Event) -> None:
        if not records:
            return
        newer, profiles = self._seen_in(records), self._profiles_in(records)
        while True:
            try:
                started = time.perf_counter()
                self.seen.extend(newer)
                self.segments.put(profiles)
                self.metrics.histogram("write_seconds").observe(time.perf_counter() - started)
                break
            except redis.RedisError as error:
                self._report("the cache does not answer", error)
                if stopping.wait(PAUSE_S):
                    return
        self.consumer.commit(records)
        lateness = datetime.now(UTC) - records[-1].published_at
        self.metrics.gauge("behind_seconds").set(max(lateness.total_seconds(), 0.0))

    def _seen_in(self, records: Sequence[Record]) -> dict[str, list[int]]:
        newer: dict[str, list[int]] = {}
        for record in records:
            if record.topic == USERS.name:
                continue
            event = self._read(
                record, Impression if record.topic == IMPRESSIONS.name else Interaction
            )
            if event is not None:
                newer.setdefault(event.user_id, []).append(item_key(event.item_id))
        return newer

    def _profiles_in(self, records: Sequence[Record]) -> dict[str, User | None]:
        """The last profile of each reader; None where the last record withdraws it."""
        latest: dict[str, User | None] = {}
        for record in records:
            if record.topic != USERS.name:
                continue
            if record.value is None:
                latest[record.key] = None
            elif (profile := self._read(record, User)) is not None:
                latest[profile.user_id] = profile
        return latest

    def _read(self, record: Record, model: type[Read]) -> Read | None:
        """The record as its model, counted; or None, and it lies among the dead letters."""
        try:
            message = model.model_validate_json(record.value or b"")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "record"
            self.consumer.dead_letter(record, f"{field}: {first['msg']}")
            self.metrics.counter("dead_lettered_total").labels(topic=record.topic).inc()
            return None
        self.metrics.counter("events_total").labels(topic=record.topic).inc()
        return message

    def _report(self, trouble: str, error: Exception) -> None:
        if self.trouble != trouble:
            log.warning("waiting", reason=trouble, error=str(error))
        self.trouble = trouble
