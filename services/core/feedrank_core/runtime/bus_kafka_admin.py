"""Questions to a Kafka cluster, on a connection that survives the brokers' restarts."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import kafka
from kafka.errors import KafkaError, KafkaTimeoutError, RequestTimedOutError

from feedrank_core.runtime.bus_kafka_connection import Connection

SILENCE = (KafkaTimeoutError, RequestTimedOutError)
"""Whoever waited once does not wait a second time."""

Answer = TypeVar("Answer")


class Administration:
    """One admin client for the questions of a bus; any thread may ask."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._client: kafka.KafkaAdminClient | None = None
        self._lock = Lock()

    def ask(self, question: Callable[[kafka.KafkaAdminClient], Answer]) -> Answer:
        """Raises: BusUnavailableError."""
        with self._lock, self._connection.translated():
            was_connected = self._client is not None
            try:
                return question(self._connected())
            except (KafkaError, OSError) as error:
                self._drop()
                if not was_connected or isinstance(error, SILENCE):
                    raise
            # A broker that was started again leaves the old client without any connection.
            try:
                return question(self._connected())
            except (KafkaError, OSError):
                self._drop()
                raise

    def close(self) -> None:
        """Release the connections."""
        with self._lock:
            self._drop()

    def _connected(self) -> kafka.KafkaAdminClient:
        if self._client is None:
            self._client = self._connection.built(kafka.KafkaAdminClient, timeout_s=self._timeout_s)
        return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, OSError):
                client.close()
