"""HTTP bodies of the two public services."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.events import ClientImpression, ClientInteraction
from feedrank_core.contracts.ids import ExternalId
from feedrank_core.contracts.items import ClientItem
from feedrank_core.contracts.slates import Degraded, Source
from feedrank_core.contracts.users import ClientUser

MAX_BATCH = 1000
MAX_BODY_BYTES = 1 << 20
MAX_FEED_LIMIT = 100
MAX_FUTURE_S = 300.0
"""How far ahead of ours a client's clock may run before its event is refused. Seconds."""


class Rejection(Message):
    """Why one member of a batch was refused; `index` counts from 0."""

    index: Annotated[int, Field(ge=0)]
    reason: str


class BatchResult(Message):
    """The answer to a batch: what the bus now holds, and what it does not."""

    accepted: Annotated[int, Field(ge=0)]
    rejected: tuple[Rejection, ...] = ()


class FeedItem(Message):
    """One place of a feed."""

    item_id: ExternalId
    position: Annotated[int, Field(ge=0)]
    value: float
    source: Source
    reasons: tuple[str, ...] = ()


class FeedResponse(Message):
    """One page of a feed; `next_cursor` is null when nothing is left."""

    request_id: ExternalId
    session_id: ExternalId
    user_id: ExternalId
    served_at: Timestamp
    bundle: str | None
    arms: dict[str, str] = {}
    degraded: tuple[Degraded, ...] = ()
    items: tuple[FeedItem, ...]
    next_cursor: str | None


class SentImpression(ClientImpression):
    """An impression in a batch: it says what it is, as every event there does."""

    event_type: Literal["impression"]  # pyright: ignore[reportIncompatibleVariableOverride,reportGeneralTypeIssues]


AnyEvent = Annotated[SentImpression | ClientInteraction, Field(union_mode="left_to_right")]


class EventBatch(Message):
    """Many events at once, of any type."""

    events: Annotated[tuple[AnyEvent, ...], Field(min_length=1, max_length=MAX_BATCH)]


class ItemBatch(Message):
    """Many items at once."""

    items: Annotated[tuple[ClientItem, ...], Field(min_length=1, max_length=MAX_BATCH)]


class UserBatch(Message):
    """Many profiles at once."""

    users: Annotated[tuple[ClientUser, ...], Field(min_length=1, max_length=MAX_BATCH)]


class Problem(Message):
    """RFC 9457 problem details. `remedy` says what to do about it."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    remedy: str | None = None
    field: str | None = None
