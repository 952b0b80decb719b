"""Checks a feed request by hand: FastAPI's own parameters cost more than the ranking."""

from __future__ import annotations

from collections.abc import Mapping

from feedrank_core.contracts.api import MAX_FEED_LIMIT
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.ids import MAX_ID_LENGTH, ExternalId
from pydantic import TypeAdapter, ValidationError

from feedrank_gateway.cursor import CursorCodec
from feedrank_gateway.feed import FeedRequest

DEFAULT_LIMIT = 20

_EXTERNAL_ID = TypeAdapter(ExternalId)
_SURFACES = {str(surface): surface for surface in Surface}
_LIMITS = {str(limit): limit for limit in range(1, MAX_FEED_LIMIT + 1)}

PARAMETERS = [
    {
        "name": "user_id",
        "in": "path",
        "required": True,
        "description": "Any reader, known or not: printable characters.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    },
    {
        "name": "limit",
        "in": "query",
        "description": "Items a page.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_FEED_LIMIT,
            "default": DEFAULT_LIMIT,
        },
    },
    {
        "name": "surface",
        "in": "query",
        "description": "Where the feed is shown.",
        "schema": {"type": "string", "enum": list(_SURFACES), "default": str(Surface.HOME)},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "`next_cursor` of the page before; without it a new session begins.",
        "schema": {"type": "string"},
    },
]
"""The same rules for /openapi.json."""


class InvalidQueryError(ValueError):
    """A parameter breaks its rule; `field` names it."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field


def parse(user_id: str, query: Mapping[str, str], cursors: CursorCodec) -> FeedRequest:
    """The request. Raises: InvalidQueryError, BadCursorError."""
    check_user_id(user_id)
    limit = _LIMITS.get(query.get("limit", "20"))
    if limit is None:
        raise InvalidQueryError("limit", f"must be a whole number from 1 to {MAX_FEED_LIMIT}")
    surface = _SURFACES.get(query.get("surface", "home"))
    if surface is None:
        raise InvalidQueryError("surface", f"must be one of {', '.join(_SURFACES)}")
    text = query.get("cursor")
    cursor = cursors.decode(text, user_id) if text else None
    return FeedRequest(user_id, limit, surface, cursor)


def check_user_id(user_id: str) -> None:
    """Raises: InvalidQueryError for what is no `ExternalId`."""
    if 0 < len(user_id) <= MAX_ID_LENGTH and user_id.isprintable():
        return  # isprintable is the stricter of the two: it refuses unusual spaces as well
    try:
        _EXTERNAL_ID.validate_python(user_id)
    except ValidationError:
        rule = f"must be 1 to {MAX_ID_LENGTH} printable characters"
        raise InvalidQueryError("user_id", rule) from None
