"""Puts a record that could not be used on its topic's `-dlq` twin, the same way on every bus."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.contracts.topics import TOPICS, with_dead_letters
from feedrank_core.runtime.bus import Outgoing, Publisher, Record


def publish_dead_letter(
    publisher: Publisher, record: Record, reason: str, *, refused_by: str
) -> None:
    """Hold the record with its reason, keyed by its topic. Raises: BusUnavailableError."""
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=base64.b64encode(record.value or b"").decode(),
        reason=reason,
        refused_by=refused_by,
        refused_at=datetime.now(UTC),
    )
    twin = with_dead_letters()[TOPICS[record.topic].dlq]
    publisher.publish(twin, [Outgoing(record.topic, letter.model_dump_json().encode())])
