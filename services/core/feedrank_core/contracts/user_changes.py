"""Erasing a reader and joining two: the orders, and what each store says came of them.

An order speaks of what was accepted up to its own instant. Whoever comes back under the same id
afterwards is somebody new. All orders stand in one partition, so that every store applies them in
one sequence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.ids import ExternalId

LAKE_GROUP = "lake_eraser"
STREAM_GROUP = "feature_store"
FEATURES_GROUP = "feature_eraser"
ORDER_GROUPS = (LAKE_GROUP, STREAM_GROUP, FEATURES_GROUP)
"""Everyone who must have read an order before the bus may forget it."""


ChangeId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""A UUID's hexadecimal digits."""


class ChangeKind(StrEnum):
    """What is done with the reader."""

    ERASE = "erase"
    MERGE = "merge"


class Store(StrEnum):
    """Where something of a reader lies."""

    BUS = "bus"
    LAKE = "lake"
    STREAM_STATE = "stream_state"
    FEATURE_TABLES = "feature_tables"
    ONLINE_STORE = "online_store"
    CACHE = "cache"


class StoreState(StrEnum):
    """How far a store is with an order."""

    PENDING = "pending"
    EXPIRES = "expires"
    DONE = "done"


class MergeBody(Message):
    """Who the reader of the path has turned out to be."""

    into: ExternalId


class UserChange(Message):
    """An order. It alone names the reader; what is kept of it names a `subject`."""

    change_id: ChangeId
    kind: ChangeKind
    user_id: ExternalId
    into: ExternalId | None = None
    accepted_at: Timestamp

    @model_validator(mode="after")
    def _into_fits_the_kind(self) -> UserChange:
        if (self.into is None) is (self.kind is ChangeKind.MERGE):
            raise ValueError("into names the other reader of a merge, and of nothing else")
        if self.into == self.user_id:
            raise ValueError("into is the same reader")
        return self


class ChangeReport(Message):
    """What one store did about an order. `subject` is the reader's id under a keyed hash."""

    change_id: ChangeId
    kind: ChangeKind
    subject: str
    accepted_at: Timestamp
    store: Store
    state: StoreState
    reported_at: Timestamp
    expires_at: Timestamp | None = None
    """When the last trace is gone by itself, of a store that cannot or need not remove it now."""
    removed: Annotated[int, Field(ge=0)] = 0
    """Rows, entries or keys that went, counted by the store."""


class StoreReceipt(Message):
    """One line of a receipt."""

    store: Store
    state: StoreState
    reported_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    removed: Annotated[int, Field(ge=0)] = 0


class Receipt(Message):
    """An order and the state of every store. It holds no reader's id."""

    receipt_id: ChangeId
    kind: ChangeKind
    subject: str
    accepted_at: Timestamp
    stores: tuple[StoreReceipt, ...]


def stores_of(kind: ChangeKind) -> tuple[Store, ...]:
    """Who must report on an order. A merge leaves the bus alone: its records are read anew."""
    return tuple(s for s in Store if kind is ChangeKind.ERASE or s is not Store.BUS)
