"""Wraps a record that could not be used, the same way on every bus."""

from __future__ import annotations

import base64
from datetime import datetime

from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.runtime.bus import Record


def dead_letter_of(record: Record, reason: str, refused_by: str, refused_at: datetime) -> bytes:
    """The record as its `-dlq` twin holds it."""
    return (
        DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=base64.b64encode(record.value or b"").decode(),
            reason=reason,
            refused_by=refused_by,
            refused_at=refused_at,
        )
        .model_dump_json()
        .encode()
    )
