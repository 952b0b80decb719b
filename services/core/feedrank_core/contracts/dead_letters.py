"""What a `-dlq` topic holds: the record as it came, why it was refused, and where it stood."""

from __future__ import annotations

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp


class DeadLetter(Message):
    """A record that could not be used. `value` is base64 so that any bytes survive."""

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    key: str
    value: str
    reason: str
    refused_by: str
    refused_at: Timestamp
