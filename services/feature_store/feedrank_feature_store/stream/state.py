"""The state of the stream: what every event was folded into, and how far, in one transaction.

One process writes a folder. Changes gather in memory; `checkpoint` commits all of them together
with the positions they reach. After a crash the last checkpoint is whole, and what came after it
is read again from the bus: nothing is folded twice, nothing is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import xxhash

from feedrank_feature_store.stream import rows
from feedrank_feature_store.stream.erased import Erased
from feedrank_feature_store.stream.merges import Merges
from feedrank_feature_store.stream.outbox import Outbox
from feedrank_feature_store.stream.remembered import EventIds, ParkedViews
from feedrank_feature_store.stream.tables import CounterTable, PackedTable
from feedrank_feature_store.stream.trending import Trending

LAYOUT = 4
"""Of what is packed in the state. A folder of another layout is built anew from the lake."""
MAP_BYTES = 1 << 40
"""Address space, not memory or disk: what the file may grow to."""
MAX_DATABASES = 32
_META = b"state"
Place = tuple[str, int]
"""A topic and a partition."""


class StateInUseError(RuntimeError):
    """Another process writes this state."""


class StateLayoutError(RuntimeError):
    """The folder holds a state that this release cannot read, or one that was never finished."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Be the one process that writes this state. Raises: StateInUseError."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUseError(f"another process writes the state in {folder}") from error
        yield
    finally:
        os.close(descriptor)


def user_key(user_id: str) -> bytes:
    """A reader's key in the tables: 16 bytes, so that no id is too long for LMDB."""
    return xxhash.xxh3_128_digest(user_id.encode())


class State:
    """Open it inside `only_one`. Not safe for two threads at once. Raises: StateLayoutError."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        # Without a flush of the meta page a power cut can undo the last checkpoint, whole.
        self._env = lmdb.open(
            str(folder),
            map_size=MAP_BYTES,
            max_dbs=MAX_DATABASES,
            metasync=False,
            readonly=read_only,
        )
        names = ["meta", "users", "items", "catalogue", "profiles", "trending"]
        names += ["waiting_users", "waiting_items"]
        dbs = {name: self._env.open_db(name.encode(), create=not read_only) for name in names}
        self._meta_db = dbs["meta"]
        self.reader = self._env.begin()
        self.users, self.items = CounterTable(dbs["users"], num_parts=4), CounterTable(dbs["items"])
        self.histories, self.seen, self.hidden, self.followed = self.users.parts
        self.catalogue, self.profiles = PackedTable(dbs["catalogue"]), PackedTable(dbs["profiles"])
        self.trending = Trending(dbs["trending"], self.reader)
        self.waiting_users = Outbox(dbs["waiting_users"], self.reader)
        self.waiting_items = Outbox(dbs["waiting_items"], self.reader)
        self.event_ids = EventIds(self._env)
        self.parked = ParkedViews(self._env)
        self.merges = Merges(self._env)
        self.positions: dict[Place, int] = {}
        self.erased = Erased()
        self._load_meta(read_only)

    @property
    def tables(self) -> tuple[CounterTable | PackedTable, ...]:
        """Those that hold readers and items."""
        return (self.users, self.items, self.catalogue, self.profiles)

    def checkpoint(self, *, now_s: float, whole: bool = True) -> None:
        """Commit every change and the positions. Blocks on the disk. Units: Unix seconds.

        `whole` False says that more must follow before this state may be used: it is being
        built. Raises: lmdb.Error where the disk is full, and then nothing was committed.
        """
        remembered = (self.event_ids, self.parked, self.merges)
        for memory in remembered:
            memory.kept.prepare(now_s)
        # An open reader keeps the pages that the last checkpoint replaced from being used again.
        self.reader.abort()
        try:
            self._write(now_s, whole)
        finally:
            self.reader = self._env.begin()
        # Only now: after a commit that failed all of it must be written once more.
        outboxes = (self.waiting_users, self.waiting_items)
        for part in (*self.tables, *remembered, self.trending, *outboxes):
            part.saved()

    def _write(self, now_s: float, whole: bool) -> None:
        with self._env.begin(write=True) as writer:
            for table in self.tables:
                table.save(writer)
            self.event_ids.save(writer)
            self.parked.save(writer)
            self.merges.save(writer)
            self.trending.save(writer, now_s)
            self.waiting_users.save(writer)
            self.waiting_items.save(writer)
            writer.put(_META, self._meta(whole), db=self._meta_db)

    def num_bytes(self) -> int:
        """Of the file, with what is free in it for later."""
        info, stat = self._env.info(), self._env.stat()
        return (info["last_pgno"] + 1) * stat["psize"]

    def num_bytes_used(self) -> int:
        """Of the pages that hold something, as of the last checkpoint."""
        dbs = [table.db for table in self.tables]
        dbs += [*self.event_ids.kept.all(), *self.parked.kept.all()]
        stats = [self.reader.stat(db) for db in dbs]
        pages = ("branch_pages", "leaf_pages", "overflow_pages")
        return sum(stat[kind] * stat["psize"] for stat in stats for kind in pages)

    def entries(self) -> dict[str, int]:
        """How many readers and items were counted, as of the last checkpoint."""
        return {
            "users": rows.num_entries(self.reader, self.users.db),
            "items": rows.num_entries(self.reader, self.items.db),
        }

    def close(self) -> None:
        """Let go of the folder; what was not in a checkpoint is forgotten."""
        self.reader.abort()
        self._env.close()

    def _meta(self, whole: bool) -> bytes:
        positions = [[topic, p, offset] for (topic, p), offset in self.positions.items()]
        meta = {
            "layout": LAYOUT,
            "id": self.id,
            "whole": whole,
            "positions": positions,
            "event_ids": self.event_ids.kept.numbers(),
            "parked": self.parked.kept.numbers(),
            "merges": self.merges.kept.numbers(),
        }
        return json.dumps(meta).encode()

    def _load_meta(self, read_only: bool) -> None:
        packed = rows.get(self.reader, self._meta_db, _META)
        if packed is None:
            self.id, self.is_new = uuid.uuid4().hex, True
            return
        meta = json.loads(packed)
        self.id, self.is_new = meta["id"], False
        if meta["layout"] != LAYOUT or not meta["whole"]:
            raise StateLayoutError(f"the state in {self.folder} is of another layout or unfinished")
        self.positions = {(topic, p): offset for topic, p, offset in meta["positions"]}
        if not read_only:
            self.reader.abort()
            self.event_ids.kept.restore(meta["event_ids"])
            self.parked.kept.restore(meta["parked"])
            self.merges.kept.restore(meta["merges"])
            self.reader = self._env.begin()
            self.merges.restore(self.reader)
