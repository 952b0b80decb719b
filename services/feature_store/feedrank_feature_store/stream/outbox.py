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


class Changed(IntFlag):
    """What of a reader changed, where not all of it is written anew each time."""

    COUNTERS = 1
    PROFILE = 2
    SEEN = 4
    HIDDEN = 8
    FOLLOWED = 16
    ALL = 31


class Outbox:
    """Marks by key: since when (microseconds), and what. Not safe for two threads at once."""

    def __init__(self, db: rows.Database, reader: lmdb.Transaction) -> None:
        self._db = db
        self._waiting: dict[bytes, tuple[int, int]] = {
            key: _MARK.unpack(value) for key, value in rows.every(reader, db)
        }
        self._under_way: dict[bytes, tuple[int, int]] = {}
        self._saved = set(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._waiting)

    def mark(self, key: bytes, since_us: int, what: int = Changed.COUNTERS) -> None:
        """This entity changed, by something that was accepted at `since_us`."""
        held = self._waiting.get(key)
        if held is not None:
            since_us, what = min(since_us, held[0]), what | held[1]
        self._waiting[key] = (since_us, what)

    def take(self, limit: int) -> dict[bytes, tuple[int, int]]:
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

    def again(self, keys: Iterable[bytes]) -> None:
        """These could not be shown; they wait once more."""
        for key in keys:
            since_us, what = self._under_way.pop(key)
            self.mark(key, since_us, what)

    def forget(self, key: bytes) -> None:
        """The entity is no more."""
        self._waiting.pop(key, None)
        self._under_way.pop(key, None)

    def save(self, writer: lmdb.Transaction) -> None:
        """Write the marks that were added since the last save, remove those that went."""
        marks = self._under_way | self._waiting
        for key in self._saved - marks.keys():
            writer.delete(key, db=self._db)
        added = sorted(marks.keys() - self._saved)
        writer.cursor(self._db).putmulti([(key, _MARK.pack(*marks[key])) for key in added])
        self._saved = set(marks)
