"""Tables of the state: LMDB below, what was lately used in memory, written back as one.

A table reads through and writes back: `save` puts what changed into the caller's transaction.
Until then nothing of it is on disk, so that a crash falls back to the last transaction whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import lmdb
import numpy as np

from feedrank_feature_store.stream import rows
from feedrank_feature_store.stream.counting import NEVER_US, NUM_COLUMNS

FIRST_ROWS = 1024
MAX_BYTES = 200_000_000
"""What stays in memory between transactions, a table."""
_COUNTED = 1 + NUM_COLUMNS
"""Numbers at the head of an entity's value: its instant and counters. Sizes of parts follow."""


class PackedTable:
    """Bytes by key; an empty value is none."""

    def __init__(self, db: rows.Database) -> None:
        self.db = db
        self._held: dict[bytes, bytes] = {}
        self._changed: set[bytes] = set()
        self._num_bytes = 0

    def load(self, reader: lmdb.Transaction, keys: Iterable[bytes]) -> None:
        """Bring these into memory by one pass over the tree."""
        self._let_go()
        absent = sorted({key for key in keys if key not in self._held})
        found = rows.get_many(reader, self.db, absent)
        for key in absent:
            self._hold(key, found.get(key, b""))

    def get(self, reader: lmdb.Transaction, key: bytes) -> bytes:
        """The value, or b""."""
        value = self._held.get(key)
        if value is None:
            value = rows.get(reader, self.db, key) or b""
            self._hold(key, value)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value; b"" removes the key."""
        self._hold(key, value)
        self._changed.add(key)

    def items(self, reader: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value as of the last save."""
        yield from rows.every(reader, self.db)

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what changed."""
        changed = sorted(self._changed)
        puts = [(key, self._held[key]) for key in changed if self._held[key]]
        writer.cursor(self.db).putmulti(puts)
        for key in changed:
            if not self._held[key]:
                writer.delete(key, db=self.db)

    def saved(self) -> None:
        """The save has been committed: what is held may go where there is much of it."""
        self._changed.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._num_bytes > MAX_BYTES and not self._changed:
            self._held.clear()
            self._num_bytes = 0

    def _hold(self, key: bytes, value: bytes) -> None:
        self._num_bytes += len(value) - len(self._held.get(key, b""))
        self._held[key] = value


class CounterTable:
    """Decayed counters by key, as rows of arrays that `counting.fold` works on.

    What else is written with the counters of an entity is one of its `parts`, and one value with
    them below: whatever happens to an entity then changes one page of the tree (decision 12). A
    value is a head of 8-byte numbers, the parts, and the entity's id.
    Shapes: value (capacity, columns) float64, at_us (capacity,) int64.
    """

    def __init__(self, db: rows.Database, *, num_parts: int = 0) -> None:
        self.db = db
        self.value = np.zeros((FIRST_ROWS, NUM_COLUMNS))
        self.at_us = np.full(FIRST_ROWS, NEVER_US)
        self.names: list[str] = []
        self.parts = tuple(Part(self) for _ in range(num_parts))
        self._head_columns = _COUNTED + num_parts
        self._row_of: dict[bytes, int] = {}
        self._changed: set[int] = set()
        self._num_bytes = 0

    def load(self, reader: lmdb.Transaction, keys: Iterable[bytes]) -> None:
        """Bring those of these that were counted into memory by one pass over the tree."""
        self._let_go()
        absent = sorted({key for key in keys if key not in self._row_of})
        found = rows.get_many(reader, self.db, absent)
        place, packed = self._add(found), list(found.values())
        head_bytes = self._head_columns * 8
        heads = np.frombuffer(b"".join([one[:head_bytes] for one in packed]), np.int64)
        heads = heads.reshape(len(packed), self._head_columns)
        self.at_us[place] = heads[:, 0]
        self.value[place] = heads[:, 1:_COUNTED].view(np.float64)
        starts = [head_bytes] * len(packed)
        all_ends = (head_bytes + np.cumsum(heads[:, _COUNTED:], axis=1)).T.tolist()
        for part, ends in zip(self.parts, all_ends, strict=True):
            part.values += [one[a:b] for one, a, b in zip(packed, starts, ends, strict=True)]
            starts = ends
        self.names += [one[a:].decode() for one, a in zip(packed, starts, strict=True)]
        self._num_bytes += sum(map(len, packed))

    def places(
        self, reader: lmdb.Transaction, keys: Sequence[bytes], names: Sequence[str]
    ) -> np.ndarray:
        """The row of each key, a new one where nothing was counted yet. Shapes: (N,) int64."""
        self.load(reader, keys)
        new = {k: n for k, n in zip(keys, names, strict=True) if k not in self._row_of}
        place = self._add(new)
        self.at_us[place], self.value[place] = NEVER_US, 0.0
        self.names += new.values()
        for part in self.parts:
            part.values += [b""] * len(new)
        self._num_bytes += len(new) * self._head_columns * 8
        return np.fromiter((self._row_of[key] for key in keys), np.int64, len(keys))

    def row(self, reader: lmdb.Transaction, key: bytes) -> int | None:
        """The row of one key, None where nothing was counted yet."""
        if key not in self._row_of:
            self.load(reader, [key])
        return self._row_of.get(key)

    def touch(self, rows: np.ndarray) -> None:
        """These rows were changed."""
        self._changed.update(rows.tolist())

    def find(self, reader: lmdb.Transaction, key: bytes) -> tuple[np.ndarray, int, str] | None:
        """The counters of one entity, their instant and its id, or None. Shapes: (columns,)."""
        row = self.row(reader, key)
        if row is None or self.at_us[row] == NEVER_US:
            return None
        return self.value[row].copy(), int(self.at_us[row]), self.names[row]

    def put(
        self, reader: lmdb.Transaction, key: bytes, name: str, value: np.ndarray, at_us: int
    ) -> None:
        """Set the counters of one entity."""
        [row] = self.places(reader, [key], [name])
        self.value[row], self.at_us[row] = value, at_us
        self._changed.add(int(row))

    def remove(self, reader: lmdb.Transaction, key: bytes) -> None:
        """Hold nothing of an entity; the next save takes it from the disk."""
        row = self.row(reader, key)
        if row is not None:
            self.value[row], self.at_us[row] = 0.0, NEVER_US
            for part in self.parts:
                part.values[row] = b""
            self._changed.add(row)

    def grown(self, row: int, num_bytes: int) -> None:
        """A part of this row was changed."""
        self._num_bytes += num_bytes
        self._changed.add(row)

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what changed."""
        keys = list(self._row_of)
        changed = sorted(self._changed, key=keys.__getitem__)
        at_us, value = self.at_us[changed], self.value[changed]
        sizes = np.array([len(p.values[row]) for row in changed for p in self.parts], np.int64)
        sizes = sizes.reshape(len(changed), len(self.parts))
        heads = np.concatenate([at_us[:, None], value.view(np.int64), sizes], axis=1).tobytes()
        head_bytes, puts = self._head_columns * 8, []
        for n, row in enumerate(changed):
            if at_us[n] == NEVER_US:
                writer.delete(keys[row], db=self.db)
            else:
                head = heads[n * head_bytes : (n + 1) * head_bytes]
                parts = [part.values[row] for part in self.parts]
                puts.append((keys[row], b"".join((head, *parts, self.names[row].encode()))))
        writer.cursor(self.db).putmulti(puts)

    def saved(self) -> None:
        """The save has been committed: what is held may go where there is much of it."""
        self._changed.clear()
        self._let_go()

    def items(self, reader: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
        """Every key and packed value as of the last save."""
        yield from rows.every(reader, self.db)

    def _let_go(self) -> None:
        # Only what is on the disk too; rows that a caller holds are of a later load.
        if self._num_bytes > MAX_BYTES and not self._changed:
            self.names.clear()
            self._row_of.clear()
            self._num_bytes = 0
            for part in self.parts:
                part.values.clear()

    def _add(self, keys: Iterable[bytes]) -> slice:
        """New rows for these, whose numbers, names and parts the caller sets."""
        start = len(self._row_of)
        self._row_of.update(zip(keys, count(start), strict=False))
        end = len(self._row_of)
        while len(self.at_us) < end:
            self.value = np.concatenate([self.value, np.zeros_like(self.value)])
            self.at_us = np.concatenate([self.at_us, np.full_like(self.at_us, NEVER_US)])
        return slice(start, end)


class Part:
    """Packed values beside the counters of a table's entities, by their keys; b"" is none.

    `values` are by row. An entity that was never counted has none.
    """

    def __init__(self, table: CounterTable) -> None:
        self.values: list[bytes] = []
        self._table = table

    def get(self, reader: lmdb.Transaction, key: bytes) -> bytes:
        """The value, or b""."""
        row = self._table.row(reader, key)
        return b"" if row is None else self.values[row]

    def put(self, reader: lmdb.Transaction, key: bytes, value: bytes) -> None:
        """Set the value of an entity that was counted."""
        row = self._table.row(reader, key)
        assert row is not None, "only who was counted has parts"
        self.set(row, value)

    def set(self, row: int, value: bytes) -> None:
        """Set the value of the entity in this row of the table."""
        self._table.grown(row, len(value) - len(self.values[row]))
        self.values[row] = value
