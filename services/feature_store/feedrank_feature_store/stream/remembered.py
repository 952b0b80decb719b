"""What the stream remembers for a while: ids of events it folded, and views that wait for an item.

Both live in generations of half a retention each. What a generation holds goes with it, so that
nothing is ever searched for what is old, and the last seven days are always there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import lmdb
import msgspec
import xxhash
from feedrank_core.contracts.topics import RETENTION

from feedrank_feature_store.stream import rows

GENERATION_S = RETENTION.total_seconds() / 2
KEPT_GENERATIONS = 3
_HASH_BYTES = 8
_ONE_KEY = b"ids"
"""Every id is a value of this one key, so that LMDB packs them without headers."""


class Generations:
    """Databases of one name, one for each span of GENERATION_S, the last three of them.

    `many_values`: a key holds many values, all of one size.
    """

    def __init__(self, env: lmdb.Environment, name: str, *, many_values: bool = False) -> None:
        self._env, self._name, self._many_values = env, name, many_values
        self._dbs: dict[int, rows.Database] = {}

    def restore(self, numbers: Iterable[int]) -> None:
        """Open what earlier processes left."""
        for number in numbers:
            self._open(number)

    def prepare(self, now_s: float) -> None:
        """Have the generation of now, drop those that are too old."""
        number = int(now_s // GENERATION_S)
        for old in [n for n in self._dbs if n <= number - KEPT_GENERATIONS]:
            with self._env.begin(write=True) as writer:
                writer.drop(self._dbs.pop(old))
        self._open(number)

    def newest(self) -> rows.Database:
        """The generation of the last `prepare`."""
        return self._dbs[max(self._dbs)]

    def all(self) -> list[rows.Database]:
        """Every database kept."""
        return list(self._dbs.values())

    def numbers(self) -> list[int]:
        """The generations kept."""
        return sorted(self._dbs)

    def _open(self, number: int) -> None:
        # In a transaction of its own: one that fails would take the handle with it.
        if number not in self._dbs:
            name = f"{self._name}/{number}".encode()
            self._dbs[number] = self._env.open_db(
                name, dupsort=self._many_values, dupfixed=self._many_values
            )


class EventIds:
    """Which events were folded: 8 bytes each for at least seven days."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.kept = Generations(env, "event_ids", many_values=True)
        self._recent: set[bytes] = set()

    def first_of_each(self, reader: lmdb.Transaction, ids: Sequence[bytes]) -> list[bool]:
        """Whether each is the first of its kind, and remember it. Ids are hashes of 8 bytes."""
        cursors = [reader.cursor(db) for db in self.kept.all()]
        recent, first = self._recent, []
        for one in ids:
            known = one in recent or any(c.set_key_dup(_ONE_KEY, one) for c in cursors)
            first.append(not known)
            recent.add(one)
        return first

    def remember(self, ids: Iterable[bytes]) -> None:
        """These were folded by other means."""
        self._recent.update(ids)

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what is new."""
        cursor = writer.cursor(self.kept.newest())
        cursor.putmulti(((_ONE_KEY, one) for one in sorted(self._recent)), dupdata=False)

    def saved(self) -> None:
        """The save has been committed."""
        self._recent.clear()


@dataclass(frozen=True)
class ParkedView:
    """A view whose item nobody had published by then, so far as is known."""

    user_id: str
    item_id: str
    event_id: str
    at_us: int
    dwell_s: float


class ParkedViews:
    """Views by item key, for at least seven days."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.kept = Generations(env, "parked_views")
        self._recent: dict[bytes, list[ParkedView]] = {}
        self._resolved: set[bytes] = set()

    def park(self, item_key: bytes, view: ParkedView) -> None:
        """Keep a view until its item is published, or never."""
        self._recent.setdefault(item_key, []).append(view)

    def take(self, reader: lmdb.Transaction, item_key: bytes, first_at_us: int) -> list[ParkedView]:
        """The views of the item from `first_at_us` on; they are parked no longer."""
        recent = self._recent.pop(item_key, [])
        due = [view for view in recent if view.at_us >= first_at_us]
        if len(due) < len(recent):
            self._recent[item_key] = [view for view in recent if view.at_us < first_at_us]
        for db in self.kept.all():
            for key, value in rows.after(reader, db, item_key):
                if not key.startswith(item_key):
                    break
                view = _DECODER.decode(value)
                if view.at_us >= first_at_us and key not in self._resolved:
                    self._resolved.add(key)
                    due.append(view)
        return due

    def rename(self, reader: lmdb.Transaction, user_id: str, into: str | None) -> None:
        """Give a reader's views to another, or to nobody. Looks at every view that waits."""
        for item_key, views in self._recent.items():
            mine = [view for view in views if view.user_id == user_id]
            theirs = [replace(view, user_id=into) for view in mine] if into else []
            self._recent[item_key] = [view for view in views if view not in mine] + theirs
        for db in self.kept.all():
            for key, value in rows.every(reader, db):
                view = _DECODER.decode(value)
                if view.user_id == user_id and key not in self._resolved:
                    self._resolved.add(key)
                    if into:
                        self.park(key[:-_HASH_BYTES], replace(view, user_id=into))

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what is new, remove what was taken."""
        current = self.kept.newest()
        for key in self._resolved:
            for db in self.kept.all():
                writer.delete(key, db=db)
        for item_key, views in self._recent.items():
            for view in views:
                writer.put(item_key + _hash(view), _ENCODER.encode(view), db=current)

    def saved(self) -> None:
        """The save has been committed."""
        self._recent.clear()
        self._resolved.clear()


def _hash(view: ParkedView) -> bytes:
    return event_hash("interactions", view.event_id)


def event_hash(topic: str, event_id: str) -> bytes:
    """Eight bytes that stand for an event; of 600 M, a week at 1000/s, two are alike by 1 %."""
    return xxhash.xxh3_64_digest(f"{topic}/{event_id}".encode())


_DECODER = msgspec.msgpack.Decoder(ParkedView)
_ENCODER = msgspec.msgpack.Encoder()
