"""What the stream knows of an item: how it was first and last published, and whether it is active.

Versions are taken in any order, so that a late one changes nothing of a later one.
"""

from __future__ import annotations

import struct

import msgspec
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import is_engaged
from feedrank_core.contracts.items import DWELL_THRESHOLD_S, WITHDRAWN, ItemType

LATER_US = (1 << 63) - 1
"""After every instant: an item that nobody published yet."""
SHORTEST_LONG_VIEW_S = min(DWELL_THRESHOLD_S.values())
_KEY = struct.Struct("<q")


class ItemVersion(msgspec.Struct, frozen=True):
    """One record of an item, as published or withdrawn. Units: instants in microseconds."""

    item_id: str
    item_type: str
    creator_id: str
    category: str
    created_at_us: int
    active: bool
    at_us: int
    offset: int

    @property
    def is_published(self) -> bool:
        """Whether the record says more of the item than that it is withdrawn."""
        return self.creator_id != WITHDRAWN


class ItemState(msgspec.Struct, array_like=True, frozen=True):
    """An item, of all its versions so far. `first`, `last`, `word`: (instant, offset)."""

    item_id: str
    item_type: str = ""
    first: tuple[int, int] = (LATER_US, 0)
    creator_id: str = ""
    category: str = ""
    created_at_us: int = 0
    was_active: bool = False
    last: tuple[int, int] = (-LATER_US, 0)
    active: bool = False
    word: tuple[int, int] = (-LATER_US, 0)

    @property
    def is_published(self) -> bool:
        """Whether anybody ever said what the item is."""
        return bool(self.item_type)

    @property
    def is_active(self) -> bool:
        """Whether it may be shown: a withdrawal holds until the item is published again."""
        return self.was_active and self.active

    @property
    def first_at_us(self) -> int:
        """When it was first published."""
        return self.first[0]


def with_version(state: ItemState | None, version: ItemVersion) -> ItemState:
    """The item after one more version."""
    state = state or ItemState(version.item_id)
    place = (version.at_us, version.offset)
    if place >= state.word:
        state = msgspec.structs.replace(state, word=place, active=version.active)
    if version.is_published and place < state.first:
        state = msgspec.structs.replace(state, first=place, item_type=version.item_type)
    if version.is_published and place >= state.last:
        state = msgspec.structs.replace(
            state,
            last=place,
            creator_id=version.creator_id,
            category=version.category,
            created_at_us=version.created_at_us,
            was_active=version.active,
        )
    return state


def engages(action: str, dwell_s: float | None, at_us: int, item: ItemState | None) -> bool:
    """Whether an interaction engages, its item being as it was first published by then."""
    known = item is not None and item.first_at_us <= at_us
    item_type = ItemType(item.item_type) if item is not None and known else None
    return is_engaged(InteractionType(action), dwell_s, item_type)


def may_engage_later(
    action: str, dwell_s: float | None, at_us: int, item: ItemState | None
) -> bool:
    """Whether an earlier first publication could make this view engage."""
    unknown = item is None or item.first_at_us > at_us
    return unknown and action == InteractionType.VIEW and (dwell_s or 0.0) > SHORTEST_LONG_VIEW_S


def key_bytes(item_key: int) -> bytes:
    """An item's key as tables hold it."""
    return _KEY.pack(item_key)


def key_number(key: bytes) -> int:
    """The item's key of its bytes."""
    return _KEY.unpack(key)[0]


_DECODER = msgspec.msgpack.Decoder(ItemState)
_ENCODER = msgspec.msgpack.Encoder()


def pack_item(state: ItemState) -> bytes:
    """The state as bytes."""
    return _ENCODER.encode(state)


def unpack_item(packed: bytes) -> ItemState | None:
    """The state of these bytes, None of none."""
    return _DECODER.decode(packed) if packed else None
