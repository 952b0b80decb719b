"""Follows the log into the state: bus and imports, each event once, a checkpoint every so often."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event, Lock

import lmdb
import redis
import structlog
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.contracts.user_changes import STREAM_GROUP
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Consumer, LeaseLostError, Record
from feedrank_core.runtime.metrics import Metrics

from feedrank_feature_store.ports import OnlineStoreError
from feedrank_feature_store.stream.folding import Folder
from feedrank_feature_store.stream.inputs import FOLDED, from_records
from feedrank_feature_store.stream.lake_log import LakeLog
from feedrank_feature_store.stream.orders import Orders
from feedrank_feature_store.stream.state import Place, State

log = structlog.get_logger(__name__)

GROUP = STREAM_GROUP
POLL_S = 0.25
LINGER_S = 0.02
"""Wait after a small read, so that the next one is worth its calls."""
SMALL_READ = 500
PAUSE_S = 0.5
"""Wait before the next try while the bus is away or the disk full."""
IMPORTS_EVERY_S = 1.0
MEASURE_EVERY_S = 1.0
MAX_UNSAVED = 100_000
"""Events folded since the last checkpoint: what a crash makes be read again, and memory holds."""
COLLECT_AFTER = 100_000
"""Objects beyond those that went, more than one read of the log leaves in memory."""


class ReplacedBusError(RuntimeError):
    """The state is ahead of the bus: this is not the bus that it was folded from."""


def collect_seldom() -> None:
    """Have Python look for cycles of garbage after COLLECT_AFTER objects, not after each 700.

    What a read makes goes with it, and what the state holds is no cycle: both were looked at for
    nothing.
    """
    gc.set_threshold(COLLECT_AFTER)


class StreamFollower:
    """Reads, folds and saves in one thread; `lock` is held while the state is touched.

    `wake` is called after what others may show has changed.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer,
        state: State,
        lock: Lock,
        lake_log: LakeLog,
        orders: Orders,
        metrics: Metrics,
        *,
        wake: Callable[[], None],
        max_records: int,
        checkpoint_s: float,
    ) -> None:
        self._bus, self._consumer = bus, consumer
        self._state, self._lock = state, lock
        self._lake_log, self._orders, self._metrics = lake_log, orders, metrics
        self._folder = Folder(state)
        self._wake = wake
        self._max_records, self._checkpoint_s = max_records, checkpoint_s
        self._last: dict[Place, Record] = {}
        self._met: set[Place] = set()
        self._behind: set[Place] = set()
        self._refused: deque[tuple[Record, str]] = deque()
        self._unsaved = 0
        self._saved_at = self._imported_at = self._measured_at = time.monotonic()
        self.trouble: str | None = "has not read from the bus yet"

    def run(self, stopping: Event) -> None:
        """Follow until told to stop, then save. Blocks. Raises: ReplacedBusError."""
        self._resume()
        while not stopping.is_set():
            try:
                num_records = self.step()
                self.trouble = None
                if num_records < SMALL_READ:
                    stopping.wait(LINGER_S)
            except LeaseLostError as error:
                self._orders.drop()
                self._last.clear()
                log.warning("lease_lost", reason=str(error))
            except BusUnavailableError as error:
                self._report("the bus does not answer", error)
                stopping.wait(PAUSE_S)
            except (redis.RedisError, OnlineStoreError) as error:
                self._report("the cache does not forget", error)
                stopping.wait(PAUSE_S)
            except lmdb.Error as error:
                self._report("the state cannot be saved", error)
                stopping.wait(PAUSE_S)
        self.save()

    def step(self) -> int:
        """Read and fold once; how many records.

        Raises: BusUnavailableError, LeaseLostError, redis.RedisError, OnlineStoreError.
        """
        now = time.monotonic()
        if self._unsaved >= MAX_UNSAVED or now - self._saved_at >= self._checkpoint_s:
            self.save()
        if now - self._imported_at >= IMPORTS_EVERY_S:
            self._follow_imports()
        if now - self._measured_at >= MEASURE_EVERY_S:
            self._measure()
        records = self._consumer.poll(max_records=self._max_records, timeout_s=POLL_S)
        if not records and self._behind:
            self._fill_ends()
        if folded := self._orders.take(records):
            self._fold(folded)
        if self._orders.apply():
            self._unsaved += 1
            self.save()
        self._orders.finish(self._consumer)
        return len(records)

    def save(self) -> None:
        """Publish what was refused, commit the state, then the bus; what fails is tried again.

        Raises: lmdb.Error, BusUnavailableError, LeaseLostError.
        """
        # The state never reads again what a checkpoint has passed: until then a letter is lost
        # with the process.
        self._publish_refused()
        if self._unsaved:
            started = time.perf_counter()
            with self._lock:
                self._state.checkpoint(now_s=time.time())
            self._metrics.histogram("checkpoint_seconds").observe(time.perf_counter() - started)
            self._unsaved = 0
        self._saved_at = time.monotonic()
        if self._last:
            self._consumer.commit(list(self._last.values()))
            self._last.clear()

    def _resume(self) -> None:
        """Continue where the state stands, whatever the bus has noted."""
        for topic in FOLDED:
            ends = self._bus.end_offsets(topic)
            committed = self._bus.committed(topic, group=GROUP)
            for partition in range(topic.partitions):
                position = self._state.positions.get((topic.name, partition), 0)
                if position > ends.get(partition, 0):
                    raise ReplacedBusError(
                        f"the state in {self._state.folder} holds {topic.name}/{partition} up to"
                        f" {position} and the bus ends at {ends.get(partition, 0)}: it is not the"
                        " bus this state was folded from; restore the bus or delete the folder"
                    )
                noted = committed.get(partition, 0)
                if position != noted:
                    # Of what was saved and not committed the last is read again: it is folded no
                    # more, and committed also where nothing follows it.
                    start = position - 1 if position > noted else position
                    self._consumer.seek(partition, start, topic=topic.name)

    def _fold(self, records: Sequence[Record]) -> None:
        started = time.perf_counter()
        with self._lock:
            fresh = self._advance(records)
            inputs = from_records(fresh)
            self._folder.fold(inputs)
            self._unsaved += len(records)
        self._refused += inputs.refused
        self._wake()
        for topic in FOLDED:
            num = sum(record.topic == topic.name for record in fresh)
            self._metrics.counter("events_total").labels(topic=topic.name).inc(num)
        self._metrics.histogram("fold_seconds").observe(time.perf_counter() - started)
        behind = datetime.now(UTC) - records[-1].published_at
        self._metrics.gauge("behind_seconds").set(max(behind.total_seconds(), 0.0))
        self._publish_refused()

    def _publish_refused(self) -> None:
        """Each record that could not be read goes to the dead letters, at least once."""
        while self._refused:
            record, reason = self._refused[0]
            self._consumer.dead_letter(record, reason)
            self._refused.popleft()
            self._metrics.counter("dead_lettered_total").labels(topic=record.topic).inc()

    def _advance(self, records: Sequence[Record]) -> list[Record]:
        """The records that the state does not hold yet; its positions pass them."""
        positions, fresh = self._state.positions, []
        for record in records:
            place = (record.topic, record.partition)
            expected = positions.get(place, 0)
            if record.offset > expected and self._may_lack(place):
                self._fill(record, expected)
            self._met.add(place)
            if record.offset >= expected:
                fresh.append(record)
                positions[place] = record.offset + 1
            self._last[place] = record
        return fresh

    def _may_lack(self, place: Place) -> bool:
        """Whether a gap is more than what compaction leaves: there only while we were away."""
        return not TOPICS[place[0]].compacted or place not in self._met

    def _fill(self, record: Record, start: int) -> None:
        """The bus dropped records before this one: the lake has them."""
        found = self._lake_log.fill(record.topic, record.partition, start, record.offset)
        is_compacted = TOPICS[record.topic].compacted
        missing = 0 if is_compacted else record.offset - start - found
        self._metrics.counter("lost_total").labels(topic=record.topic).inc(missing)
        place = {"topic": record.topic, "partition": record.partition}
        log.warning("gap", start=start, end=record.offset, in_lake=found, lost=missing, **place)

    def _fill_ends(self) -> None:
        """Where the bus dropped the last records of a partition, take them from the lake.

        No record says that it follows them, and orders wait for what was on the bus.
        """
        left = self._consumer.lag()
        for place in [place for place in self._behind if left.get(place) == 0]:
            with self._lock:
                self._unsaved += self._lake_log.fill_to_its_end(*place)
            self._behind.discard(place)
            self._wake()

    def _follow_imports(self) -> None:
        """Fold what was imported, a window at a time, so that the bus never waits long."""
        with self._lock:
            num_rows = self._lake_log.follow_imports()
        self._unsaved += num_rows
        if num_rows:
            self._metrics.counter("imported_total").inc(num_rows)
            self._wake()
        else:
            self._imported_at = time.monotonic()

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        positions, lag = self._state.positions, 0
        self._behind.clear()
        for topic in FOLDED:
            for partition, end in self._bus.end_offsets(topic).items():
                place = (topic.name, partition)
                behind = max(0, end - positions.get(place, 0))
                lag += behind
                if behind:
                    self._behind.add(place)
        self._metrics.gauge("lag_records").set(lag)
        with self._lock:
            self._metrics.gauge("state_bytes").set(self._state.num_bytes())
            self._metrics.gauge("waiting_readers").set(len(self._state.waiting_users))
            for kind, num in self._state.entries().items():
                self._metrics.gauge("state_entries").labels(kind=kind).set(num)

    def _report(self, trouble: str, error: Exception) -> None:
        if self.trouble != trouble:
            log.warning("waiting", reason=trouble, error=str(error))
        self.trouble = trouble
