"""The publishing side of the bus on Apache Kafka."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import kafka
from kafka.errors import KafkaError

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime.bus import (
    BusUnavailableError,
    Outgoing,
    partition_of,
    require_partitions,
)
from feedrank_core.runtime.bus_kafka_connection import MAX_RECORD_BYTES, Connection

ABORT_S = 0.2
BATCH_BYTES = 128 << 10
LINGER_MS = 50
"""No batch leaves half full while a call still adds to it; its end sends what there is."""


class KafkaPublisher:
    """Publishes a call's records together and returns once every replica in sync holds them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer: kafka.KafkaProducer | None = None
        self._known: set[str] = set()

    def publish(self, topic: Topic, records: Sequence[Outgoing]) -> None:
        """Hold every record, in the order given per key.

        Raises: BusUnavailableError, TopicMismatchError.
        """
        name = self._connection.name(topic.name)
        deadline = time.monotonic() + self._connection.timeout_s
        try:
            with self._connection.translated():
                producer = self._connected()
                self._require_partitions(producer, topic, name)
                sent = [
                    producer.send(
                        name,
                        key=record.key.encode(),
                        value=record.value,
                        partition=partition_of(record.key, topic.partitions),
                    )
                    for record in records
                ]
                producer.flush(timeout=max(0.0, deadline - time.monotonic()))
                for future in sent:
                    if not future.succeeded():
                        future.get(timeout=0)
        except BusUnavailableError:
            # What is under way may still arrive; it must not arrive behind a later call.
            self.close()
            raise

    def close(self) -> None:
        """Release the connections; what is under way is given up."""
        producer, self._producer = self._producer, None
        self._known.clear()
        if producer is None:
            return
        try:
            producer.close(timeout=0)
        except (KafkaError, OSError):
            # With records under way `close` raises before it closes anything, and the producer
            # would go on sending them.
            producer._sender.force_close()
            producer._sender.join(timeout=ABORT_S)

    def _connected(self) -> kafka.KafkaProducer:
        if self._producer is None:
            timeout_ms = self._connection.timeout_ms
            self._producer = self._connection.built(
                kafka.KafkaProducer,
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                max_block_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms + LINGER_MS,
                max_request_size=MAX_RECORD_BYTES,
                batch_size=BATCH_BYTES,
                linger_ms=LINGER_MS,
                metrics_enabled=False,
            )
        return self._producer

    def _require_partitions(self, producer: Any, topic: Topic, name: str) -> None:
        if name not in self._known:
            require_partitions(topic, len(producer.partitions_for(name) or ()))
            self._known.add(name)
