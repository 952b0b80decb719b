"""Puts a record that could not be used on its topic's `-dlq` twin, the same way on every bus."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from pydantic import ValidationError

from feedrank_core.contracts.api import MAX_BODY_BYTES
from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.contracts.topics import TOPICS, with_dead_letters
from feedrank_core.runtime.bus import Outgoing, Publisher, Record


def publish_dead_letter(
    publisher: Publisher, record: Record, reason: str, *, refused_by: str
) -> None:
    """Hold the record with its reason, keyed by its topic; of a huge one the beginning.

    What is larger than the intake takes could make a letter that itself fits no topic.

    Raises: BusUnavailableError.
    """
    value = record.value or b""
    if len(value) > MAX_BODY_BYTES:
        reason = f"{reason} (the first {MAX_BODY_BYTES} of {len(value)} bytes)"
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=base64.b64encode(value[:MAX_BODY_BYTES]).decode(),
        reason=reason,
        refused_by=refused_by,
        refused_at=datetime.now(UTC),
    )
    twin = with_dead_letters()[TOPICS[record.topic].dlq]
    publisher.publish(twin, [Outgoing(record.topic, letter.model_dump_json().encode())])


def reason_of(error: ValidationError) -> str:
    """What is wrong first with a record, with the field's name."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"
