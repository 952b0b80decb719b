"""The bus in one process's memory: the twin for unit tests. Nothing survives the process."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime.bus import (
    BusUnavailableError,
    LeaseLostError,
    Outgoing,
    Record,
    partition_of,
)
from feedrank_core.runtime.dead_letters import publish_dead_letter

LEASE_S = 15.0
QUIET_S = 0.8

Held = tuple[str, int]


@dataclass
class _State:
    """What the server of another bus would hold; every access is under `changed`."""

    changed: Condition = field(default_factory=Condition)
    logs: dict[Held, list[Record]] = field(default_factory=lambda: defaultdict(list))
    dropped: dict[Held, int] = field(default_factory=lambda: defaultdict(int))
    """Of each log the records from the front that nobody is given any more."""
    latest: dict[str, dict[str, Record]] = field(default_factory=lambda: defaultdict(dict))
    positions: dict[tuple[str, str, int], int] = field(default_factory=dict)
    leases: dict[tuple[str, str, int], tuple[str, float]] = field(default_factory=dict)
    members: dict[tuple[str, str], dict[str, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    is_down: bool = False

    def kept(self, held: Held, start: int, num_records: int | None = None) -> list[Record]:
        """What is still given of a log's records from `start` on, so many at most."""
        start = max(start, self.dropped[held])
        return self.logs[held][start : None if num_records is None else start + num_records]


class MemoryBus:
    """A bus without I/O. `is_down` makes every call raise BusUnavailableError, as an outage."""

    def __init__(self, *, lease_s: float = LEASE_S) -> None:
        self._state = _State()
        self._lease_s = lease_s

    @property
    def is_down(self) -> bool:
        """Whether the bus plays dead."""
        return self._state.is_down

    @is_down.setter
    def is_down(self, value: bool) -> None:
        self._state.is_down = value

    def create_topics(self) -> None:
        """Logs begin with their first record."""
        _check(self._state)

    def publisher(self) -> MemoryPublisher:
        """A publisher."""
        return MemoryPublisher(self._state)

    @contextmanager
    def consumer(
        self, topics: Sequence[Topic], *, group: str, member: str
    ) -> Iterator[MemoryConsumer]:
        """A member of `group`, closed on leaving."""
        consumer = MemoryConsumer(self._state, topics, group, member, self._lease_s)
        try:
            yield consumer
        finally:
            consumer.close()

    def broadcast(
        self, topic: Topic, *, offsets: Mapping[int, int] | None = None
    ) -> Iterator[Record | None]:
        """Every record from `offsets` on; of a compacted topic else the last of each key first."""
        state = self._state
        with state.changed:
            _check(state)
            position = {p: (offsets or {}).get(p, 0) for p in range(topic.partitions)}
            first: list[Record] = []
            if topic.compacted and not offsets:
                position = {p: len(state.logs[topic.name, p]) for p in position}
                first = list(state.latest[topic.name].values())
        yield from first
        while True:
            with state.changed:
                state.changed.wait_for(lambda: _has_more(state, topic.name, position), QUIET_S)
                _check(state)
                batch = [r for p, n in position.items() for r in state.kept((topic.name, p), n)]
            for record in batch:
                position[record.partition] = record.offset + 1
            yield from batch or [None]

    def end_offsets(self, topic: Topic) -> dict[int, int]:
        """By partition, the offset that the next record will get."""
        _check(self._state)
        return {p: len(self._state.logs[topic.name, p]) for p in range(topic.partitions)}

    def first_offsets(self, topic: Topic, starts: Mapping[int, int]) -> dict[int, int]:
        """By partition, before which offset nothing is held from its start on."""
        _check(self._state)
        return {p: max(start, self._state.dropped[topic.name, p]) for p, start in starts.items()}

    def drop(self, topic: Topic, before: Mapping[int, int]) -> None:
        """Drop records by partition, as other buses do once a topic's retention is over."""
        with self._state.changed:
            for partition, end in before.items():
                self._state.dropped[topic.name, partition] = end

    def committed(self, topic: Topic, *, group: str) -> dict[int, int]:
        """By partition, the offset of the first record that `group` has not committed."""
        _check(self._state)
        stored = self._state.positions
        return {p: stored.get((group, topic.name, p), 0) for p in range(topic.partitions)}

    def ping(self) -> None:
        """Raises: BusUnavailableError when the bus plays dead."""
        _check(self._state)


class MemoryPublisher:
    """Publishes into the memory of its bus."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def publish(self, topic: Topic, records: Sequence[Outgoing]) -> None:
        """Hold every record, in the order given per key. Raises: BusUnavailableError."""
        now = datetime.now(UTC)
        with self._state.changed:
            _check(self._state)
            for outgoing in records:
                partition = partition_of(outgoing.key, topic.partitions)
                log = self._state.logs[topic.name, partition]
                record = Record(topic.name, partition, len(log), outgoing.key, outgoing.value, now)
                log.append(record)
                if topic.compacted and record.value is None:
                    self._state.latest[topic.name].pop(record.key, None)
                elif topic.compacted:
                    self._state.latest[topic.name][record.key] = record
            self._state.changed.notify_all()

    def close(self) -> None:
        """Nothing to release."""


class MemoryConsumer:
    """Reads as one member of a group; see the port for what it guarantees."""

    def __init__(
        self, state: _State, topics: Sequence[Topic], group: str, member: str, lease_s: float
    ) -> None:
        self._state = state
        self._topics = {t.name: t for t in topics}
        self._group = group
        self._token = f"{member}:{uuid.uuid4().hex}"
        self._lease_s = lease_s
        self._following: dict[Held, int] = {}
        self._sought: dict[Held, int] = {}

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` new records of the partitions held. Raises: BusUnavailableError."""
        deadline = time.monotonic() + timeout_s
        with self._state.changed:
            while True:
                _check(self._state)
                self._renew()
                records = self._read(max_records)
                remaining_s = deadline - time.monotonic()
                if records or remaining_s <= 0:
                    return records
                self._state.changed.wait(min(remaining_s, self._lease_s / 10))

    def commit(self, records: Sequence[Record]) -> None:
        """Store the position behind these records. Raises: LeaseLostError, BusUnavailableError."""
        lost: set[Held] = set()
        with self._state.changed:
            _check(self._state)
            for record in records:
                held = (record.topic, record.partition)
                key = (self._group, *held)
                if self._owner(key) != self._token:
                    lost.add(held)
                    self._following.pop(held, None)
                    continue
                stored = self._state.positions.get(key, 0)
                self._state.positions[key] = max(stored, record.offset + 1)
                if held in self._sought:
                    self._sought[held] = record.offset + 1
        if lost:
            raise LeaseLostError(f"{self._token} of {self._group} no longer reads {sorted(lost)}")

    def dead_letter(self, record: Record, reason: str) -> None:
        """Publish the record to its topic's `-dlq` twin."""
        publish_dead_letter(MemoryPublisher(self._state), record, reason, refused_by=self._group)

    def seek(self, partition: int, offset: int, *, topic: str) -> None:
        """Continue at `offset`, now and whenever the partition is held anew."""
        held = (topic, partition)
        self._sought[held] = offset
        if held in self._following:
            self._following[held] = offset

    def lag(self) -> Mapping[Held, int]:
        """Records not yet committed of the partitions held, without those that were dropped."""
        done = self._state.positions
        return {
            held: len(self._state.kept(held, done.get((self._group, *held), 0)))
            for held in self._following
        }

    def close(self) -> None:
        """Give the partitions up at once."""
        with self._state.changed:
            for name, topic in self._topics.items():
                self._state.members[self._group, name].pop(self._token, None)
                for p in range(topic.partitions):
                    if self._owner((self._group, name, p)) == self._token:
                        del self._state.leases[self._group, name, p]
            self._following.clear()
            self._state.changed.notify_all()

    def _owner(self, key: tuple[str, str, int]) -> str | None:
        token, until = self._state.leases.get(key, (None, 0.0))
        return token if until > time.monotonic() else None

    def _renew(self) -> None:
        now = time.monotonic()
        held: dict[Held, int] = {}
        for name, topic in self._topics.items():
            members = self._state.members[self._group, name]
            members[self._token] = now + self._lease_s
            for gone in [m for m, until in members.items() if until <= now]:
                del members[gone]
            share = -(-topic.partitions // len(members))
            held |= self._take(name, topic.partitions, share, now + self._lease_s)
        self._following = held

    def _take(self, topic: str, num_partitions: int, share: int, until: float) -> dict[Held, int]:
        owners = {p: self._owner((self._group, topic, p)) for p in range(num_partitions)}
        mine = [p for p, owner in owners.items() if owner == self._token]
        for p in mine[share:]:
            del self._state.leases[self._group, topic, p]
        free = [p for p, owner in owners.items() if owner is None]
        taken: dict[Held, int] = {}
        for p in (mine[:share] + free)[:share]:
            self._state.leases[self._group, topic, p] = (self._token, until)
            stored = self._state.positions.get((self._group, topic, p), 0)
            known = self._following.get((topic, p)) if p in mine else None
            fresh = self._sought.get((topic, p), stored)
            taken[topic, p] = fresh if known is None else known
        return taken

    def _read(self, max_records: int) -> list[Record]:
        records: list[Record] = []
        for held, offset in self._following.items():
            room = max_records - len(records)
            records += self._state.kept(held, offset, room)
        for record in records:
            self._following[record.topic, record.partition] = record.offset + 1
        return records


def _check(state: _State) -> None:
    if state.is_down:
        raise BusUnavailableError("the bus in memory plays dead")


def _has_more(state: _State, topic: str, position: Mapping[int, int]) -> bool:
    return any(len(state.logs[topic, p]) > n for p, n in position.items())
