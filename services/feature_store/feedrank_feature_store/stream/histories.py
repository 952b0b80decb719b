"""Histories as packed bytes: the last engaged actions of a reader, oldest first.

A packed history is the number of its actions and then each: instant, item key, action, event id
(which orders actions of one instant), and the action's own size, so that it can be read from both
ends. Most actions are the newest: they are appended without a look at the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import HISTORY_LENGTH

ACTIONS: tuple[str, ...] = tuple(action.value for action in InteractionType)
ACTION_CODE: dict[str, int] = {action: code for code, action in enumerate(ACTIONS)}
_HEAD = struct.Struct("<qqBH")
_SIZE = struct.Struct("<H")
_COUNT_BYTES = 1


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
    actions, place = [], _COUNT_BYTES
    while place < len(packed):
        action, place = _unpack_one(packed, place)
        actions.append(action)
    return actions


def pack(actions: Sequence[Action]) -> bytes:
    """The packed history of these actions, in their order."""
    if not actions:
        return b""
    return bytes([len(actions)]) + b"".join(_pack_one(action) for action in actions)


def extend(packed: bytes, newer: Iterable[Action], *, limit: int = HISTORY_LENGTH) -> bytes:
    """The history with these actions where they belong: the last `limit` of all."""
    added = sorted(newer)
    if packed and added and added[0] < _last(packed):
        return pack(sorted([*unpack(packed), *added])[-limit:])
    for action in added:
        packed = _append(packed, action, limit)
    return packed


def _append(packed: bytes, action: Action, limit: int) -> bytes:
    count = packed[0] if packed else 0
    body = packed[_COUNT_BYTES:] + _pack_one(action)
    if count < limit:
        return bytes([count + 1]) + body
    *_, id_length = _HEAD.unpack_from(body)
    return bytes([limit]) + body[_HEAD.size + id_length + _SIZE.size :]


def _last(packed: bytes) -> Action:
    [size] = _SIZE.unpack_from(packed, len(packed) - _SIZE.size)
    return _unpack_one(packed, len(packed) - size)[0]


def _pack_one(action: Action) -> bytes:
    head = _HEAD.pack(action.at_us, action.item_key, action.code, len(action.event_id))
    size = _HEAD.size + len(action.event_id) + _SIZE.size
    return head + action.event_id + _SIZE.pack(size)


def _unpack_one(packed: bytes, place: int) -> tuple[Action, int]:
    """The action that begins at `place`, and where the next one does."""
    at_us, item_key, code, length = _HEAD.unpack_from(packed, place)
    start = place + _HEAD.size
    action = Action(at_us, packed[start : start + length], item_key, code)
    return action, start + length + _SIZE.size
