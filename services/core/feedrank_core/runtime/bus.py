"""The bus port: what every adapter guarantees, and what every service may rest on.

Adapters: `bus_kafka`, `bus_redis` (embedded) and `bus_memory` (unit tests). One test class,
tests/integration/bus_contract.py, holds them to this page.

Guarantees: records of one key keep their order; a partition has at most one reader in a group at
a time; a commit covers a prefix; delivery is at-least-once. Offsets are integers that grow by
one within a partition, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

import xxhash

from feedrank_core.contracts.topics import Topic


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. A `value` of None withdraws the key of a compacted topic."""

    key: str
    value: bytes | None


class Record(NamedTuple):
    """A record as read. `published_at` is the bus's clock."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    published_at: datetime


class BusUnavailableError(RuntimeError):
    """The bus did not take or give records in time; nothing of the call may be assumed."""


class TopicMismatchError(BusUnavailableError):
    """A topic has other partitions than the contracts say: keys would change their order."""


class LeaseLostError(RuntimeError):
    """Another reader of the group took the partition over; the batch must be dropped."""


def partition_of(key: str, num_partitions: int) -> int:
    """The partition of a key in every adapter, so that a change of bus keeps the order."""
    return xxhash.xxh3_64_intdigest(key.encode()) % num_partitions


def require_partitions(topic: Topic, found: int) -> None:
    """Raises: TopicMismatchError."""
    if found != topic.partitions:
        raise TopicMismatchError(
            f"topic {topic.name} has {found} partitions and the contracts say {topic.partitions};"
            " a key's records would lose their order: use another prefix or recreate the topic"
        )


class Publisher(Protocol):
    """Writes records. Blocks: until the bus holds all of a call, or raises."""

    def publish(self, topic: Topic, records: Sequence[Outgoing]) -> None:
        """Hold every record, in the order given per key.

        Raises: BusUnavailableError, TopicMismatchError.
        """
        ...

    def close(self) -> None:
        """Release connections; what was published is already held."""
        ...


class Consumer(Protocol):
    """Reads topics as one member of a group; one call at a time."""

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` new records, [] after `timeout_s` without any.

        Raises: BusUnavailableError; the caller polls again and sees the records once more.
        """
        ...

    def commit(self, records: Sequence[Record]) -> None:
        """Never deliver these, and what came before them in their partitions, again.

        Raises: LeaseLostError when the partition has another reader now.
        """
        ...

    def dead_letter(self, record: Record, reason: str) -> None:
        """Publish the record to its topic's `-dlq` twin; the caller commits it as usual."""
        ...

    def seek(self, partition: int, offset: int, *, topic: str) -> None:
        """Continue this partition at `offset`: sinks that keep their own position call it.

        It holds whenever the partition is given to this member anew, moved on by its commits.
        """
        ...

    def lag(self) -> Mapping[tuple[str, int], int]:
        """Records not yet committed, by (topic, partition), of the partitions held.

        From the first on that the bus still holds: what it dropped nobody can read and commit.
        """
        ...

    def close(self) -> None:
        """Give the partitions up at once, so that another reader need not wait."""
        ...


class Bus(Protocol):
    """A bus. Clients are built by it and closed by whoever asked for them."""

    def create_topics(self) -> None:
        """Every topic of the contracts and its dead-letter twin exist after this. Idempotent.

        Raises: BusUnavailableError, TopicMismatchError where a topic is there otherwise.
        """
        ...

    def publisher(self) -> Publisher:
        """A publisher; safe for use from one thread."""
        ...

    def consumer(
        self, topics: Sequence[Topic], *, group: str, member: str
    ) -> AbstractContextManager[Consumer]:
        """A member of `group`; a context manager that closes it."""
        ...

    def broadcast(
        self, topic: Topic, *, offsets: Mapping[int, int] | None = None
    ) -> Iterator[Record | None]:
        """Every record from `offsets` on (by partition; from the start where none is given).

        For a compacted topic without offsets: the last record of each key first. Yields None
        whenever it has caught up and nothing is there for about a second.
        """
        ...

    def end_offsets(self, topic: Topic) -> dict[int, int]:
        """By partition, the offset that the next record will get: what a run pins."""
        ...

    def first_offsets(self, topic: Topic, starts: Mapping[int, int]) -> dict[int, int]:
        """By partition, before which offset the bus holds nothing any more from its start on.

        That of a record, or the next one's where none is left. Raises: BusUnavailableError.
        """
        ...

    def committed(self, topic: Topic, *, group: str) -> dict[int, int]:
        """By partition, the offset of the first record that `group` has not committed."""
        ...

    def ping(self) -> None:
        """Raises: BusUnavailableError when the bus does not answer within a second."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """What a bus can do that removes single records; Kafka's records only ever expire."""

    def erase(
        self, topic: Topic, user_id: str, until: datetime, *, read: Mapping[int, int] | None
    ) -> tuple[int, int]:
        """Remove the reader's records accepted by then; from a `-dlq` the letters that hold such.

        What has no instant that can be read is of the past.

        Only those that were `read` (by partition, the first offset that was not; None for all).
        Returns how many went, and how many stay because of that. Raises: BusUnavailableError.
        """
        ...

    def remove(self, records: Sequence[Record]) -> int:
        """Remove these records; how many were there. Raises: BusUnavailableError."""
        ...

    def num_erased(self, topic: str, partition: int, start: int, end: int) -> int:
        """How many of the offsets from `start` up to `end` were removed, and so are no loss.

        Of what is past its retention nobody knows any more. Raises: BusUnavailableError.
        """
        ...

    def begin_rewrite(self) -> bool:
        """Have the server's file written anew; False while a former rewrite is under way."""
        ...

    def is_rewriting(self) -> bool:
        """Whether the server's file may still hold what was removed."""
        ...
