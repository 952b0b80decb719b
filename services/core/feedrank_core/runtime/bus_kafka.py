"""The bus on Apache Kafka, by kafka-python: topics as the contracts say, all replicas asked.

Records expire by the topic's retention; a compacted topic keeps the last of each key.
"""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError

from feedrank_core.contracts.topics import Topic, with_dead_letters
from feedrank_core.runtime.bus import Record, require_partitions
from feedrank_core.runtime.bus_kafka_admin import Administration
from feedrank_core.runtime.bus_kafka_connection import Connection
from feedrank_core.runtime.bus_kafka_consumer import KafkaConsumer, to_record
from feedrank_core.runtime.bus_kafka_publisher import KafkaPublisher
from feedrank_core.runtime.bus_kafka_topics import require_settings, settings_of, topic_settings

TIMEOUT_S = 10.0
"""A new leader is found within some seconds; who waits longer than this is told instead."""
LEASE_S = 60.0
SESSION_S = 6.0
"""The least that a broker takes by default: how long a killed reader keeps its partitions."""
PING_S = 1.0
IDLE_S = 1.0
FETCH_WAIT_MS = 200
"""How long a question on the same connection may wait behind a fetch that finds nothing."""


class KafkaBus:
    """A bus on a Kafka cluster. Units: seconds.

    A reader that does not poll for `lease_s` loses its partitions to the others of its group; a
    reader that is killed loses them sooner. A call waits for the brokers for `timeout_s`.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._connection = Connection(url, timeout_s=timeout_s)
        self._lease_s = lease_s
        self._admin = Administration(self._connection, timeout_s)
        # Its own client, so that a slow question of another thread does not look like an outage.
        self._pinger = Administration(self._connection, min(PING_S, timeout_s))

    def create_topics(self) -> None:
        """Create what is missing. Raises: BusUnavailableError, TopicMismatchError."""
        topics = {self._connection.name(t.name): t for t in with_dead_letters().values()}
        there = set(self._admin.ask(lambda admin: admin.list_topics()))
        missing = {
            name: {
                "num_partitions": topic.partitions,
                "replication_factor": self._connection.security.replication,
                "configs": topic_settings(topic),
            }
            for name, topic in topics.items()
            if name not in there
        }
        if missing:
            self._admin.ask(lambda admin: _create(admin, missing))
            self._admin.ask(lambda admin: admin.wait_for_topics(list(missing)))
        described = self._admin.ask(lambda admin: admin.describe_topics(list(topics)))
        for found in described:
            require_partitions(topics[found["name"]], len(found["partitions"]))
        settings = self._admin.ask(lambda admin: settings_of(admin, sorted(there & topics.keys())))
        for name, found in settings.items():
            require_settings(topics[name], found)

    def publisher(self) -> KafkaPublisher:
        """A publisher with connections of its own."""
        return KafkaPublisher(self._connection)

    @contextmanager
    def consumer(
        self, topics: Sequence[Topic], *, group: str, member: str
    ) -> Iterator[KafkaConsumer]:
        """A member of `group`, closed on leaving. Raises: BusUnavailableError."""
        with self._connection.translated():
            client = self._reader(
                group_id=self._connection.name(group),
                client_id=member,
                max_poll_interval_ms=int(self._lease_s * 1000),
                session_timeout_ms=int(SESSION_S * 1000),
                heartbeat_interval_ms=int(min(SESSION_S, self._lease_s) * 1000 / 4),
            )
        consumer = KafkaConsumer(
            client,
            self.publisher(),
            topics,
            self._connection,
            group=group,
            member=member,
            ping=self.ping,
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def broadcast(
        self, topic: Topic, *, offsets: Mapping[int, int] | None = None
    ) -> Iterator[Record | None]:
        """Every record from `offsets` on, else from the oldest that is kept.

        Of a compacted topic that is at least the last of each key. Raises: BusUnavailableError.
        """
        name = self._connection.name(topic.name)
        places = [kafka.TopicPartition(name, p) for p in range(topic.partitions)]
        timeout_ms = self._connection.timeout_ms
        with self._connection.translated():
            client = self._reader(group_id=None)
            try:
                client.assign(places)
                for place in places:
                    start = (offsets or {}).get(place.partition)
                    if start is None:
                        client.seek_to_beginning(place)
                    else:
                        client.seek(place, start)
                while True:
                    found = client.poll(timeout_ms=int(IDLE_S * 1000))
                    for some in found.values():
                        for one in some:
                            yield to_record(topic.name, one)
                    if not found:
                        ends = client.end_offsets(places, timeout_ms=timeout_ms)
                        if all(_at(client, p, timeout_ms) >= ends[p] for p in places):
                            yield None
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    client.close(autocommit=False, timeout_ms=timeout_ms)

    def end_offsets(self, topic: Topic) -> dict[int, int]:
        """By partition, the offset that the next record will get."""
        return self._offsets(topic, OffsetSpec.LATEST)

    def first_offsets(self, topic: Topic, starts: Mapping[int, int]) -> dict[int, int]:
        """By partition, before which offset nothing is kept from its start on."""
        kept = self._offsets(topic, OffsetSpec.EARLIEST)
        return {p: max(start, kept[p]) for p, start in starts.items()}

    def committed(self, topic: Topic, *, group: str) -> dict[int, int]:
        """By partition, the offset of the first record that `group` has not committed."""
        name, group_id = self._connection.name(topic.name), self._connection.name(group)
        places = [kafka.TopicPartition(name, p) for p in range(topic.partitions)]
        found = self._admin.ask(lambda admin: admin.list_group_offsets({group_id: places}))
        stored = {place: answer.offset for place, answer in found[group_id].items()}
        return {p.partition: max(0, stored.get(p, 0)) for p in places}

    def ping(self) -> None:
        """Raises: BusUnavailableError when no broker answers within a second."""
        self._pinger.ask(lambda admin: admin.describe_cluster())

    def close(self) -> None:
        """Release the bus's own connections."""
        self._admin.close()
        self._pinger.close()

    def _offsets(self, topic: Topic, wanted: OffsetSpec) -> dict[int, int]:
        name = self._connection.name(topic.name)
        asked = {kafka.TopicPartition(name, p): wanted for p in range(topic.partitions)}
        found = self._admin.ask(lambda admin: admin.list_partition_offsets(asked))
        return {place.partition: answer.offset for place, answer in found.items()}

    def _reader(self, **options: Any) -> kafka.KafkaConsumer:
        return self._connection.built(
            kafka.KafkaConsumer,
            **options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            metrics_enabled=False,
        )


def _at(client: kafka.KafkaConsumer, place: Any, timeout_ms: int) -> int:
    return client.position(place, timeout_ms=timeout_ms) or 0


def _create(admin: kafka.KafkaAdminClient, wanted: dict[str, dict[str, Any]]) -> None:
    with contextlib.suppress(TopicAlreadyExistsError):  # another service was quicker
        admin.create_topics(wanted)
