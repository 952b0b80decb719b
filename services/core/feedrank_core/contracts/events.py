"""What readers do: impressions and interactions.

`occurred_at` is the client's clock and serves display and dwell only. `accepted_at` is stamped
by the intake; features and labels see an event from then on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.ids import ExternalId

MAX_DWELL_S = 86_400.0


class Surface(StrEnum):
    """Where in the application the reader was."""

    HOME = "home"
    EXPLORE = "explore"
    SEARCH = "search"
    NOTIFICATION = "notification"


class InteractionType(StrEnum):
    """What a reader can do to an item; `view` is visible for a second or more."""

    VIEW = "view"
    CLICK = "click"
    LIKE = "like"
    SHARE = "share"
    COMMENT = "comment"
    FOLLOW = "follow"
    HIDE = "hide"
    REPORT = "report"


ENGAGEMENTS = frozenset(
    {
        InteractionType.CLICK,
        InteractionType.LIKE,
        InteractionType.SHARE,
        InteractionType.COMMENT,
        InteractionType.FOLLOW,
    }
)
"""Each of these alone makes an item engaged; a view does above its type's dwell threshold."""


class ClientEvent(Message):
    """The fields a client sends with any event."""

    event_id: ExternalId
    user_id: ExternalId
    item_id: ExternalId
    request_id: ExternalId | None = None
    session_id: ExternalId | None = None
    position: Annotated[int, Field(ge=0, lt=100_000)] | None = None
    surface: Surface = Surface.HOME
    occurred_at: Timestamp


class ClientImpression(ClientEvent):
    """A client says: the item entered the screen."""

    event_type: Literal["impression"] = "impression"


class ClientInteraction(ClientEvent):
    """A client says: the reader did this to the item. Units: `dwell_s` in seconds."""

    event_type: InteractionType
    dwell_s: Annotated[float, Field(ge=0, le=MAX_DWELL_S)] | None = None

    @model_validator(mode="after")
    def _view_has_dwell(self) -> ClientInteraction:
        if self.event_type is InteractionType.VIEW and self.dwell_s is None:
            raise ValueError("dwell_s is required when event_type is view")
        return self


class Impression(ClientImpression):
    """An impression as the bus holds it."""

    accepted_at: Timestamp


class Interaction(ClientInteraction):
    """An interaction as the bus holds it."""

    accepted_at: Timestamp
