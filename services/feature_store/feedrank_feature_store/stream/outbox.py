"""Entities whose newest state is not yet where others read it, kept with the state itself.

A mark outlives a crash, because it is saved in the transaction that holds the change it stands
for; so whatever was folded is shown at last, and what changes often is shown once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntFlag
from itertools import islice

import lmdb

from feedrank_feature_store.stream import rows

_MARK = struct.Struct("<qB")
Mark = tuple[int, int]
"""Since when, in microseconds, and what."""


class Changed(IntFlag):
    """What of a reader changed, where not all of it is written anew each time."""

    COUNTERS = 1
    PROFILE = 2
    SEEN = 4
    HIDDEN = 8
    FOLLOWED = 16
    ALL = 31


class Outbox:
    """Marks by key: since when (microseconds), and what.

    One page is under way at a time. Not safe for two threads at once.
    """

    def __init__(self, db: rows.Database, reader: lmdb.Transaction) -> None:
        self._db = db
        self._waiting: dict[bytes, Mark] = {
            key: _MARK.unpack(value) for key, value in rows.every(reader, db)
        }
        self._under_way: dict[bytes, Mark] = {}
        self._touched: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._waiting)

    def mark(self, key: bytes, since_us: int, what: int = Changed.COUNTERS) -> None:
        """This entity changed, by something that was accepted at `since_us`."""
        held = self._waiting.get(key)
        mark = _both(held, (since_us, what))
        if mark != held:
            self._waiting[key] = mark
            self._touched.add(key)

    def take(self, limit: int) -> dict[bytes, Mark]:
        """Up to `limit` marks, the oldest first; until `done` or `again` they are under way."""
        taken = dict(islice(self._waiting.items(), limit))
        for key in taken:
            del self._waiting[key]
        self._under_way |= taken
        return taken

    def done(self, keys: Iterable[bytes]) -> None:
        """These are shown."""
        for key in keys:
            self._under_way.pop(key, None)
            self._touched.add(key)

    def again(self, keys: Iterable[bytes]) -> None:
        """These could not be shown; they wait once more, but for those forgotten meanwhile."""
        for key in keys:
            mark = self._under_way.pop(key, None)
            if mark is not None:
                self.mark(key, *mark)

    def forget(self, key: bytes) -> None:
        """The entity is no more."""
        self._waiting.pop(key, None)
        self._under_way.pop(key, None)
        self._touched.add(key)

    def save(self, writer: lmdb.Transaction) -> None:
        """Write the marks that changed, remove those that went."""
        puts = []
        for key in sorted(self._touched):
            mark = self._mark_of(key)
            if mark is None:
                writer.delete(key, db=self._db)
            else:
                puts.append((key, _MARK.pack(*mark)))
        writer.cursor(self._db).putmulti(puts)

    def saved(self) -> None:
        """The save has been committed."""
        self._touched.clear()

    def _mark_of(self, key: bytes) -> Mark | None:
        """All that is not shown yet of an entity: what is under way may still fail."""
        waiting, under_way = self._waiting.get(key), self._under_way.get(key)
        return _both(under_way, waiting) if waiting is not None else under_way


def _both(one: Mark | None, other: Mark) -> Mark:
    return other if one is None else (min(one[0], other[0]), one[1] | other[1])
