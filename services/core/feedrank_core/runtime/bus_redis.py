"""The bus on Redis Streams: one stream a partition, one leased reader, a stored position.

For one machine without Java. The server must be durable (`valkey_command(Role.BUS, ...)`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

import redis

from feedrank_core.contracts.topics import Topic, with_dead_letters
from feedrank_core.runtime import bus_redis_erasure
from feedrank_core.runtime import bus_redis_scripts as scripts
from feedrank_core.runtime.bus import Outgoing, Record, partition_of, require_partitions
from feedrank_core.runtime.bus_redis_consumer import RedisConsumer
from feedrank_core.runtime.bus_redis_streams import (
    connect,
    first_record,
    snapshot,
    tail,
    translated,
    trim_stream,
)

LEASE_S = 15.0
CHUNK_RECORDS = 1000
"""Records a script call: keeps the server's other clients waiting for about 2 ms at most."""


class RedisPublisher:
    """Publishes by one script call a chunk, answered when the server holds all of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = connect(url)
        self._publish = self._client.register_script(scripts.PUBLISH)

    def publish(self, topic: Topic, records: Sequence[Outgoing]) -> None:
        """Hold every record, in the order given per key. Raises: BusUnavailableError."""
        partitions = range(topic.partitions)
        keys = [
            scripts.latest_key(topic.name),
            *(scripts.stream_key(topic.name, p) for p in partitions),
            *(scripts.next_key(topic.name, p) for p in partitions),
        ]
        for start in range(0, len(records), CHUNK_RECORDS):
            args: list[Any] = [topic.partitions, int(topic.compacted)]
            for record in records[start : start + CHUNK_RECORDS]:
                value = b"0" if record.value is None else b"1" + record.value
                args += (partition_of(record.key, topic.partitions), record.key, value)
            with translated(self._url):
                self._publish(keys=keys, args=args)

    def close(self) -> None:
        """Release the connections."""
        self._client.close()


class RedisBus:
    """A bus on one durable Redis or Valkey server. Units: `lease_s` in seconds.

    A reader that does not poll for `lease_s` loses its partitions to the others of its group.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S) -> None:
        self._url = url
        self._lease_s = lease_s
        self._client = connect(url)

    def create_topics(self) -> None:
        """Note each topic's partitions; its streams begin with their first record.

        Raises: BusUnavailableError, TopicMismatchError.
        """
        topics = with_dead_letters()
        with translated(self._url), self._client.pipeline(transaction=False) as pipeline:
            for name, topic in topics.items():
                pipeline.hsetnx(scripts.TOPICS_KEY, name, str(topic.partitions))
            pipeline.hmget(scripts.TOPICS_KEY, list(topics))
            found = pipeline.execute()[-1]
        for topic, partitions in zip(topics.values(), found, strict=True):
            require_partitions(topic, int(partitions))

    def publisher(self) -> RedisPublisher:
        """A publisher with connections of its own."""
        return RedisPublisher(self._url)

    @contextmanager
    def consumer(
        self, topics: Sequence[Topic], *, group: str, member: str
    ) -> Iterator[RedisConsumer]:
        """A member of `group`, closed on leaving."""
        consumer = RedisConsumer(
            connect(self._url),
            self.publisher(),
            topics,
            group=group,
            member=member,
            lease_s=self._lease_s,
            url=self._url,
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def broadcast(
        self, topic: Topic, *, offsets: Mapping[int, int] | None = None
    ) -> Iterator[Record | None]:
        """Every record from `offsets` on; of a compacted topic else the last of each key first.

        Offsets that were trimmed away already count as none. Raises: BusUnavailableError.
        """
        client = connect(self._url)
        try:
            with translated(self._url):
                position = {p: (offsets or {}).get(p, 0) for p in range(topic.partitions)}
                known: dict[str, int] = {}
                if topic.compacted and (not offsets or self._is_trimmed(client, topic, position)):
                    position = self.end_offsets(topic)
                    for record in snapshot(client, topic):
                        if record.offset >= position[record.partition]:
                            known[record.key] = record.offset
                        yield record
                for record in tail(client, topic, position):
                    # The snapshot may hold a later record of the key than the tail brings here.
                    if record is None or known.get(record.key, -1) < record.offset:
                        yield record
        finally:
            client.close()

    def end_offsets(self, topic: Topic) -> dict[int, int]:
        """By partition, the offset that the next record will get."""
        keys = [scripts.next_key(topic.name, p) for p in range(topic.partitions)]
        with translated(self._url):
            return {p: int(n or 0) for p, n in enumerate(cast(list, self._client.mget(keys)))}

    def first_offsets(self, topic: Topic, starts: Mapping[int, int]) -> dict[int, int]:
        """By partition, before which offset nothing is held from its start on."""
        # First: what is published meanwhile lies behind it.
        ends = self.end_offsets(topic)
        with translated(self._url):
            found = {p: first_record(self._client, topic.name, p, n) for p, n in starts.items()}
        return {p: record.offset if record else ends[p] for p, record in found.items()}

    def committed(self, topic: Topic, *, group: str) -> dict[int, int]:
        """By partition, the offset of the first record that `group` has not committed."""
        with translated(self._url):
            stored = cast(dict, self._client.hgetall(scripts.position_key(group, topic.name)))
        return {p: int(stored.get(b"%d" % p, 0)) for p in range(topic.partitions)}

    def ping(self) -> None:
        """Raises: BusUnavailableError when the server does not answer."""
        with translated(self._url):
            self._client.ping()

    def trim(self, topic: Topic, *, now: datetime, behind: Collection[str]) -> int:
        """Drop records past the topic's retention that each group of `behind` has committed.

        Returns how many went. Of a compacted topic the last of each key stays, as its snapshot.
        Raises: BusUnavailableError.
        """
        ends = self.end_offsets(topic)
        for group in behind:
            committed = self.committed(topic, group=group)
            ends = {p: min(end, committed[p]) for p, end in ends.items()}
        cutoff = now - topic.retention
        with translated(self._url):
            return sum(
                trim_stream(self._client, topic.name, p, end, cutoff) for p, end in ends.items()
            )

    def erase(
        self, topic: Topic, user_id: str, until: datetime, *, read: Mapping[int, int] | None
    ) -> tuple[int, int]:
        """Remove the reader's records accepted by then; see the port. Raises: BusUnavailableError.

        A record that nobody read must stay: its partition's readers would wait for it for ever.
        """
        with translated(self._url):
            return bus_redis_erasure.erase(self._client, topic, user_id, until, read)

    def remove(self, records: Sequence[Record]) -> int:
        """Remove these records; how many were there. Raises: BusUnavailableError."""
        with translated(self._url):
            return bus_redis_erasure.remove(self._client, records)

    def num_erased(self, topic: str, partition: int, start: int, end: int) -> int:
        """How many of the offsets from `start` up to `end` were erased.

        Raises: BusUnavailableError.
        """
        with translated(self._url):
            return bus_redis_erasure.num_erased(self._client, topic, partition, start, end)

    def begin_rewrite(self) -> bool:
        """Have the server's file written anew; False while a former rewrite is under way.

        Raises: BusUnavailableError.
        """
        with translated(self._url):
            return bus_redis_erasure.begin_rewrite(self._client)

    def is_rewriting(self) -> bool:
        """Whether a rewrite of the server's file is under way. Raises: BusUnavailableError."""
        with translated(self._url):
            return bus_redis_erasure.is_rewriting(self._client)

    def close(self) -> None:
        """Release the bus's own connections."""
        self._client.close()

    def _is_trimmed(self, client: redis.Redis, topic: Topic, position: Mapping[int, int]) -> bool:
        ends = self.end_offsets(topic)
        for p, offset in position.items():
            first = first_record(client, topic.name, p)
            if (first.offset if first else ends[p]) > offset:
                return True
        return False
