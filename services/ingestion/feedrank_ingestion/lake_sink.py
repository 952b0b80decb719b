"""Moves what the bus holds into the lake: every record once, the unusable to the dead letters.

The lake's own positions lead. A batch is in the lake before it is committed on the bus, so a
crash between the two replays it and the lake leaves out what it has. A dead letter is written
before the lake passes its record, so a crash may write it twice.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event

import structlog
from feedrank_core.contracts.topics import TOPICS, USER_CHANGES, Topic, with_dead_letters
from feedrank_core.contracts.user_changes import ORDER_GROUPS
from feedrank_core.runtime.bus import (
    Bus,
    BusUnavailableError,
    Consumer,
    Forgetful,
    LeaseLostError,
    Record,
)
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.metrics import Metrics

from feedrank_ingestion.lake_batch import Batch

GROUP = "lake_sink"
SINK_TOPICS = tuple(t for t in TOPICS.values() if t.in_lake)
AWAITED = {t.name: (GROUP,) for t in SINK_TOPICS} | {USER_CHANGES.name: ORDER_GROUPS}
"""By topic, the groups that have a record before the bus drops it; else its age alone counts."""
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 2.0
POLL_S = 0.25
TRIM_EVERY_S = 60.0
LOOK_EVERY_S = 60.0
"""How often it is asked whether the bus dropped what was never read; at once of new partitions."""

Place = tuple[str, int]

log = structlog.get_logger(__name__)


class ReplacedBusError(RuntimeError):
    """The lake is ahead of the bus: this is not the bus that it was filled from."""


class LakeSink:
    """One member of the group `lake_sink`. `run` returns once `stop` was called."""

    def __init__(
        self,
        *,
        bus: Bus,
        lake: Lake,
        metrics: Metrics,
        max_rows: int,
        max_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._lake = lake
        self._metrics = metrics
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._clock = clock
        self._stop = Event()
        self._expected: dict[Place, int] = {}
        self._looked_at: set[Place] = set()
        self._next_trim = self._next_look = 0.0
        self._trouble: str | None = "not started"

    def stop(self) -> None:
        """End after the batch in hand. Safe in a signal handler."""
        self._stop.set()

    def ready(self) -> str | None:
        """Why nothing reaches the lake at present, None when it does."""
        return self._trouble

    def run(self) -> None:
        """Sink until stopped; what fails is tried again, ever more slowly. Blocks.

        Raises: ReplacedBusError.
        """
        backoff_s = FIRST_BACKOFF_S
        member = f"{socket.gethostname()}-{os.getpid()}"
        while not self._stop.is_set():
            try:
                self._bus.create_topics()
                with self._bus.consumer(SINK_TOPICS, group=GROUP, member=member) as consumer:
                    self._resume(consumer)
                    self._trouble = None
                    backoff_s = FIRST_BACKOFF_S
                    while not self._stop.is_set():
                        self.step(consumer)
            except (BusUnavailableError, LeaseLostError) as error:
                self._fail(error, backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    def step(self, consumer: Consumer) -> int:
        """Read one batch, keep it, commit it; how many records it had.

        Raises: BusUnavailableError, LeaseLostError; the batch then comes again.
        """
        batch = self._read(consumer)
        if batch.records and self._keep(batch, consumer):
            consumer.commit(batch.records)
        self._trim()
        lag = consumer.lag()
        self._pass_what_was_dropped(set(lag))
        self._measure_lag(lag)
        return len(batch.records)

    def _read(self, consumer: Consumer) -> Batch:
        batch = Batch()
        deadline = time.monotonic() + self._max_seconds
        while len(batch.records) < self._max_rows and not self._stop.is_set():
            left = min(deadline - time.monotonic(), POLL_S)
            if left <= 0:
                break
            wanted = self._max_rows - len(batch.records)
            for record in consumer.poll(max_records=wanted, timeout_s=left):
                self._look_for_a_gap(record)
                batch.add(record)
        return batch

    def _look_for_a_gap(self, record: Record) -> None:
        """Count what the bus dropped before this record, but for what an erasure took."""
        place = record.topic, record.partition
        expected = self._expected.get(place, 0)
        if record.offset > expected and not TOPICS[record.topic].compacted:
            # Another sink may have read on meanwhile; a new one knows nothing yet.
            held = self._lake.positions(record.topic, writer=GROUP).get(record.partition, 0)
            self._count_lost(place, max(expected, held), record.offset)
        # Last: where the lake or the bus fails above, the record comes again and is counted then.
        self._expected[place] = max(expected, record.offset + 1)

    def _count_lost(self, place: Place, start: int, end: int) -> None:
        lost = end - start
        if lost > 0 and isinstance(self._bus, Forgetful):
            # Over a lake that was restored the sink reads again what was erased since.
            lost -= self._bus.num_erased(*place, start, end)
        if lost > 0:
            self._metrics.counter("sink_lost_total").labels(place[0]).inc(lost)
            log.error("gap", topic=place[0], partition=place[1], start=start, end=end, lost=lost)

    def _pass_what_was_dropped(self, held: set[Place]) -> None:
        """Move the lake past what the bus dropped unread, of the partitions held.

        Perhaps no record follows to show the gap, and who waits until the lake has what the bus
        held, as every order does, would wait for one.
        """
        if held <= self._looked_at and time.monotonic() < self._next_look:
            return
        try:
            for topic in SINK_TOPICS:
                known = self._lake.positions(topic.name, writer=GROUP)
                starts = {p: known.get(p, 0) for name, p in held if name == topic.name}
                self._pass(topic, starts)
        except LakeError as error:
            self._fail(error, FIRST_BACKOFF_S)
            return
        self._looked_at, self._next_look = held, time.monotonic() + LOOK_EVERY_S

    def _pass(self, topic: Topic, starts: Mapping[int, int]) -> None:
        first = self._bus.first_offsets(topic, starts) if starts else {}
        gone = {p: end for p, end in first.items() if end > starts[p]}
        for partition, end in gone.items():
            place = topic.name, partition
            expected = self._expected.get(place, 0)
            if not topic.compacted:
                self._count_lost(place, max(expected, starts[partition]), end)
            self._expected[place] = max(expected, end)
        if gone:
            self._lake.append(topic.name, [], positions=gone, writer=GROUP)

    def _keep(self, batch: Batch, consumer: Consumer) -> bool:
        """Add the rows to the lake, however long the disk stays full; False when told to stop.

        Raises: BusUnavailableError, where a dead letter cannot be written.
        """
        backoff_s = FIRST_BACKOFF_S
        waiting = dict(batch.positions)
        while waiting:
            topic = next(iter(waiting))
            # Before the lake's position passes them: a letter may come twice, none is lost.
            self._bury(batch.refused.pop(topic, []), consumer)
            try:
                with self._metrics.histogram("sink_append_seconds").labels(topic).time():
                    rows, positions = batch.rows.get(topic, []), waiting[topic]
                    added = self._lake.append(topic, rows, positions=positions, writer=GROUP)
            except ValueError:
                batch.refuse_what_does_not_fit(topic)
                continue
            except LakeError as error:
                self._fail(error, backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
                if self._stop.is_set():
                    return False
                continue
            self._metrics.counter("sink_rows_total").labels(topic).inc(added)
            self._trouble = None
            del waiting[topic]
        return True

    def _bury(self, refused: list[tuple[Record, str]], consumer: Consumer) -> None:
        for record, reason in refused:
            consumer.dead_letter(record, reason)
            self._metrics.counter("sink_rejected_total").labels(record.topic).inc()
            log.warning("dead_letter", topic=record.topic, offset=record.offset, reason=reason)

    def _resume(self, consumer: Consumer) -> None:
        """Continue where the lake stands, whatever the bus has noted."""
        for topic in SINK_TOPICS:
            ends = self._bus.end_offsets(topic)
            held = self._lake.positions(topic.name, writer=GROUP)
            for partition in range(topic.partitions):
                # Of a lake that was emptied everything is read again that the bus still holds.
                offset = held.get(partition, 0)
                if offset > ends.get(partition, 0):
                    raise ReplacedBusError(
                        f"the lake {self._lake.root} holds {topic.name}/{partition} up to {offset}"
                        f" and the bus ends at {ends.get(partition, 0)}: it is not the bus this"
                        " lake was filled from; restore the bus's folder or take an empty home"
                    )
                consumer.seek(partition, offset, topic=topic.name)

    def _trim(self) -> None:
        """Let a bus that does not expire records by itself drop those past their retention."""
        trim = getattr(self._bus, "trim", None)
        if trim is None or time.monotonic() < self._next_trim:
            return
        self._next_trim = time.monotonic() + TRIM_EVERY_S
        for topic in with_dead_letters().values():
            trim(topic, now=self._clock(), behind=AWAITED.get(topic.name, ()))

    def _measure_lag(self, lag: Mapping[Place, int]) -> None:
        by_topic = {t.name: 0 for t in SINK_TOPICS}
        for (topic, _), records in lag.items():
            by_topic[topic] += records
        for topic, records in by_topic.items():
            self._metrics.gauge("sink_lag_records").labels(topic).set(records)

    def _fail(self, error: Exception, backoff_s: float) -> None:
        self._trouble = f"{type(error).__name__}: {error}"
        self._metrics.counter("sink_failures_total").inc()
        log.error("sink_failed", reason=str(error), retry_in_s=backoff_s)
        self._stop.wait(backoff_s)


def missing(lake: Lake, topic: Topic, ends: dict[int, int]) -> dict[int, int]:
    """By partition, how many records below `ends` are not in the lake yet."""
    held = lake.positions(topic.name, writer=GROUP)
    return {p: end - held.get(p, 0) for p, end in ends.items() if end > held.get(p, 0)}
