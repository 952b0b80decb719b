"""Histories as packed bytes: the last engaged actions of a reader, oldest first.

A packed action is its instant, item key, action and event id; the id stays because it orders
actions of one instant. Appending to packed bytes is cheap, and most actions are the newest.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import HISTORY_LENGTH

ACTIONS: tuple[str, ...] = tuple(action.value for action in InteractionType)
ACTION_CODE: dict[str, int] = {action: code for code, action in enumerate(ACTIONS)}
_HEAD = struct.Struct("<qqBH")
_ID_LENGTH = struct.Struct("<H")
_ID_LENGTH_AT = _HEAD.size - _ID_LENGTH.size


class Action(NamedTuple):
    """One engaged action. The order of the fields is the order of a history.

    Units: `at_us` in microseconds since 1970; `event_id` in UTF-8, which sorts as DuckDB does.
    """

    at_us: int
    event_id: bytes
    item_key: int
    code: int


def unpack(packed: bytes) -> list[Action]:
    """The actions of a packed history, oldest first."""
    actions, place = [], 0
    while place < len(packed):
        at_us, item_key, code, length = _HEAD.unpack_from(packed, place)
        start = place + _HEAD.size
        place = start + length
        actions.append(Action(at_us, packed[start:place], item_key, code))
    return actions


def pack(actions: Iterable[Action]) -> bytes:
    """The packed history of these actions, in their order."""
    return b"".join(_pack_one(action) for action in actions)


def extend(packed: bytes, newer: Iterable[Action], *, limit: int = HISTORY_LENGTH) -> bytes:
    """The history with these actions where they belong: the last `limit` of all."""
    actions = unpack(packed)
    for action in newer:
        if not actions or action > actions[-1]:
            actions.append(action)
        else:
            insort(actions, action)
    return pack(actions[-limit:])


def _pack_one(action: Action) -> bytes:
    head = _HEAD.pack(action.at_us, action.item_key, action.code, len(action.event_id))
    return head + action.event_id
