"""A member of a group on the Kafka bus: the broker shares partitions out, we commit prefixes."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import kafka
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime.bus import LeaseLostError, Publisher, Record
from feedrank_core.runtime.bus_kafka_connection import Connection
from feedrank_core.runtime.dead_letters import publish_dead_letter

Place = kafka.TopicPartition
Held = tuple[str, int]
LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
JOIN_S = 0.5
"""The library gives a join up with the poll that asked for it: members whose polls are shorter
than their group needs to settle would begin again for ever."""


def to_record(topic: str, found: Any) -> Record:
    """A record of the port, under our name of its topic."""
    at = datetime.fromtimestamp(found.timestamp / 1000, UTC)
    key = (found.key or b"").decode(errors="replace")
    return Record(topic, found.partition, found.offset, key, found.value, at)


class _Assignment(kafka.ConsumerRebalanceListener):
    """Tells the consumer what it was given; called inside its own polls."""

    def __init__(self, owner: KafkaConsumer) -> None:
        self._owner = owner

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._owner.forget(revoked)

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._owner.take(assigned)


class KafkaConsumer:
    """Reads as one member of a group; see the port for what it guarantees."""

    def __init__(
        self,
        client: kafka.KafkaConsumer,
        publisher: Publisher,
        topics: Sequence[Topic],
        connection: Connection,
        *,
        group: str,
        member: str,
        ping: Callable[[], None],
    ) -> None:
        self._client = client
        self._ping = ping
        self._publisher = publisher
        self._topics = {t.name: t for t in topics}
        self._ours = {connection.name(t.name): t.name for t in topics}
        self._connection = connection
        self._group = group
        self._member = member
        self._committed: dict[Any, int] = {}
        self._sought: dict[Held, int] = {}
        client.subscribe(topics=list(self._ours), listener=_Assignment(self))

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` new records of the partitions held. Raises: BusUnavailableError."""
        with self._connection.translated():
            if not self._client.assignment():
                timeout_s = max(timeout_s, JOIN_S)
            found = self._client.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        if not found:
            # A poll of the library says nothing of a broker that is silent. Asked by another
            # connection: on ours the question would wait behind the fetch that waits for records.
            self._ping()
        return [to_record(self._ours[p.topic], one) for p, some in found.items() for one in some]

    def commit(self, records: Sequence[Record]) -> None:
        """Store the position behind these records. Raises: LeaseLostError, BusUnavailableError."""
        read: dict[Any, int] = {}
        for record in records:
            place = self._place(record.topic, record.partition)
            read[place] = max(read.get(place, 0), record.offset + 1)
        if not read:
            return
        lost = read.keys() - self._client.assignment()
        if lost:
            raise LeaseLostError(self._lost(lost))
        with self._connection.translated():
            # Sent even where it moves nothing: only the broker knows whether we still read there.
            ends = {place: max(end, self._position(place)) for place, end in read.items()}
            noted = {place: OffsetAndMetadata(end, "", -1) for place, end in ends.items()}
            try:
                self._client.commit(noted, timeout_ms=self._connection.timeout_ms)
            except LOST as error:
                raise LeaseLostError(self._lost(ends)) from error
        self._committed |= ends
        for place, end in read.items():
            held = (self._ours[place.topic], place.partition)
            if held in self._sought:
                self._sought[held] = end

    def dead_letter(self, record: Record, reason: str) -> None:
        """Publish the record to its topic's `-dlq` twin."""
        publish_dead_letter(self._publisher, record, reason, refused_by=self._group)

    def seek(self, partition: int, offset: int, *, topic: str) -> None:
        """Continue at `offset`, now and whenever the partition is held anew."""
        place = self._place(topic, partition)
        self._sought[topic, partition] = offset
        if place in self._client.assignment():
            self._client.seek(place, offset)

    def lag(self) -> Mapping[Held, int]:
        """Records not yet committed of the partitions held, without those that expired."""
        held = list(self._client.assignment())
        if not held:
            return {}
        with self._connection.translated():
            timeout_ms = self._connection.timeout_ms
            ends = self._client.end_offsets(held, timeout_ms=timeout_ms)
            done = {p: self._position(p) for p in held}
            # Nobody can read and commit what retention has dropped.
            behind = [p for p in held if done[p] < ends[p]]
            first = self._client.beginning_offsets(behind, timeout_ms=timeout_ms) if behind else {}
        left = {p: max(0, ends[p] - max(done[p], first.get(p, 0))) for p in held}
        return {(self._ours[p.topic], p.partition): records for p, records in left.items()}

    def close(self) -> None:
        """Leave the group at once; a broker that is gone forgets the member by itself."""
        with contextlib.suppress(KafkaError, OSError):
            self._client.close(autocommit=False, timeout_ms=self._connection.timeout_ms)
        self._publisher.close()

    def take(self, assigned: Iterable[Any]) -> None:
        """Start where a sink asked to. What was committed is asked anew: others may have read."""
        for place in assigned:
            self._committed.pop(place, None)
            sought = self._sought.get((self._ours[place.topic], place.partition))
            if sought is not None:
                self._client.seek(place, sought)

    def forget(self, revoked: Iterable[Any]) -> None:
        """These have another reader soon."""
        for place in revoked:
            self._committed.pop(place, None)

    def _position(self, place: Any) -> int:
        if place not in self._committed:
            stored = self._client.committed(place, timeout_ms=self._connection.timeout_ms)
            self._committed[place] = stored or 0
        return self._committed[place]

    def _place(self, topic: str, partition: int) -> Any:
        return Place(self._connection.name(topic), partition)

    def _lost(self, places: Iterable[Any]) -> str:
        names = sorted(f"{self._ours[p.topic]}/{p.partition}" for p in places)
        return f"{self._member} of {self._group} no longer reads {', '.join(names)}"
