"""One page of a feed and its two writings: the answer, and the slate that logs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import orjson
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.slates import Degraded


class Place(NamedTuple):
    """One item of a page. A tuple, because a frozen dataclass takes twice as long to make."""

    item_id: str
    source: str
    value: float
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a request is answered with. `num_before` items of the session came earlier."""

    request_id: str
    session_id: str
    user_id: str
    surface: Surface
    served_at: datetime
    bundle: str
    degraded: tuple[Degraded, ...]
    num_before: int
    places: list[Place]
    next_cursor: str | None

    def answer(self) -> bytes:
        """`contracts.api.FeedResponse` as JSON, written without pydantic: this is every request.

        A test holds the two equal.
        """
        return orjson.dumps(
            {
                "request_id": self.request_id,
                "session_id": self.session_id,
                "user_id": self.user_id,
                "served_at": self.served_at,
                "bundle": self.bundle,
                "arms": {},
                "degraded": self.degraded,
                "items": [
                    {
                        "item_id": place.item_id,
                        "position": position,
                        "value": place.value,
                        "source": place.source,
                        "reasons": place.reasons,
                    }
                    for position, place in enumerate(self.places, self.num_before)
                ],
                "next_cursor": self.next_cursor,
            }
        )

    def slate(self) -> bytes:
        """`contracts.slates.Slate` as JSON. The gateway's clock is also the bus's here."""
        return orjson.dumps(
            {
                "request_id": self.request_id,
                "session_id": self.session_id,
                "user_id": self.user_id,
                "surface": self.surface,
                "served_at": self.served_at,
                "bundle": self.bundle,
                "degraded": self.degraded,
                "items": [
                    {
                        "item_id": place.item_id,
                        "position": position,
                        "source": place.source,
                        "scores": {"retrieval": place.score},
                        "value": place.value,
                    }
                    for position, place in enumerate(self.places, self.num_before)
                ],
                "accepted_at": self.served_at,
            }
        )
