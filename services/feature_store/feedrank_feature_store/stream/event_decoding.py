"""Events of the bus as the contract reads them, without the time that its models take.

The structs take an event as the intake writes it, and never what the contract refuses; whatever
they do not take the contract's model decides, which also says what is wrong. So the lake, which
asks the model alone, holds the same events with the same values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from feedrank_core.contracts.events import (
    MAX_DWELL_S,
    Impression,
    Interaction,
    InteractionType,
    Surface,
)
from feedrank_core.contracts.ids import MAX_ID_LENGTH
from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_FINER_THAN_US = re.compile(rb":[0-9]{2}:[0-9]{2}[.][0-9]{7}").search
"""A fraction of which msgspec rounds what the models cut off."""


class _Event(Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The fields of contracts.events.ClientEvent, and when the intake accepted it."""

    event_id: Id
    user_id: Id
    item_id: Id
    request_id: Id | None = None
    session_id: Id | None = None
    position: Annotated[int, Meta(ge=0, lt=100_000)] | None = None
    surface: Surface = Surface.HOME
    occurred_at: datetime
    accepted_at: datetime

    def __post_init__(self) -> None:
        # Python calls printable what contracts.ids.PRINTABLE does, less some spaces.
        ids = f"{self.event_id}{self.user_id}{self.item_id}{self.request_id}{self.session_id}"
        if not ids.isprintable():
            raise ValueError("an id that may not be printable")
        # At the ends of the calendar an instant of another zone has no time in UTC.
        if self.occurred_at.tzinfo is not UTC or self.accepted_at.tzinfo is not UTC:
            raise ValueError("an instant that is not in UTC")


class _Impression(_Event, kw_only=True, forbid_unknown_fields=True, gc=False):
    event_type: Literal["impression"] = "impression"


class _Interaction(_Event, kw_only=True, forbid_unknown_fields=True, gc=False):
    event_type: InteractionType
    dwell_s: Annotated[float, Meta(ge=0, le=MAX_DWELL_S)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dwell_s is None and self.event_type is InteractionType.VIEW:
            raise ValueError("a view without its dwell")


DecodedEvent = _Event | Impression | Interaction
_IMPRESSIONS = msgspec.json.Decoder(_Impression)
_INTERACTIONS = msgspec.json.Decoder(_Interaction)


def impression_of(value: bytes) -> _Impression | Impression:
    """What a record of the topic says. Raises: pydantic.ValidationError."""
    return _plain(_IMPRESSIONS, value) or Impression.model_validate_json(value)


def interaction_of(value: bytes) -> _Interaction | Interaction:
    """What a record of the topic says. Raises: pydantic.ValidationError."""
    return _plain(_INTERACTIONS, value) or Interaction.model_validate_json(value)


_Kind = TypeVar("_Kind", bound=_Event)


def _plain(decoder: msgspec.json.Decoder[_Kind], value: bytes) -> _Kind | None:
    # Behind an escape a fraction could hide.
    if b"\\" in value or _FINER_THAN_US(value):
        return None
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
