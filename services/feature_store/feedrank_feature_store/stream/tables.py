"""Tables of the state: LMDB below, what was lately used in memory, written back as one.

A table reads through and writes back: `save` puts what changed into the caller's transaction.
Until then nothing of it is on disk, so that a crash falls back to the last transaction whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import lmdb
import numpy as np

from feedrank_feature_store.stream import rows
from feedrank_feature_store.stream.counting import NEVER_US, NUM_COLUMNS

FIRST_ROWS = 1024
MAX_ROWS = 100_000
"""Entities whose counters stay in memory between transactions: 45 MB of numbers."""
MAX_BYTES = 64_000_000
"""Packed values that stay in memory between transactions, a table."""
_AT = struct.Struct("<q")
_HEAD_BYTES = _AT.size + NUM_COLUMNS * 8


class PackedTable:
    """Bytes by key; an empty value is none."""

    def __init__(self, db: rows.Database) -> None:
        self.db = db
        self._held: dict[bytes, bytes] = {}
        self._changed: set[bytes] = set()
        self._num_bytes = 0

    def load(self, reader: lmdb.Transaction, keys: Iterable[bytes]) -> None:
        """Bring these into memory by one pass over the tree."""
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
        if self._num_bytes > MAX_BYTES:
            self._held.clear()
            self._num_bytes = 0

    def _hold(self, key: bytes, value: bytes) -> None:
        self._num_bytes += len(value) - len(self._held.get(key, b""))
        self._held[key] = value


class CounterTable:
    """Decayed counters by key, as rows of arrays that `counting.fold` works on.

    Shapes: value (capacity, columns) float64, at_us (capacity,) int64.
    """

    def __init__(self, db: rows.Database) -> None:
        self.db = db
        self.value = np.zeros((FIRST_ROWS, NUM_COLUMNS))
        self.at_us = np.full(FIRST_ROWS, NEVER_US)
        self.names: list[str] = []
        self._row_of: dict[bytes, int] = {}
        self._changed: set[int] = set()

    def places(
        self, reader: lmdb.Transaction, keys: Sequence[bytes], names: Sequence[str]
    ) -> np.ndarray:
        """The row of each key, a new one where nothing was counted yet. Shapes: (N,) int64."""
        absent = {k: n for k, n in zip(keys, names, strict=True) if k not in self._row_of}
        if absent:
            self._load(reader, absent)
        return np.fromiter((self._row_of[key] for key in keys), np.int64, len(keys))

    def touch(self, rows: np.ndarray) -> None:
        """These rows were changed."""
        self._changed.update(rows.tolist())

    def find(self, reader: lmdb.Transaction, key: bytes) -> tuple[np.ndarray, int, str] | None:
        """The counters of one entity, their instant and its id, or None. Shapes: (columns,)."""
        row = self._row_of.get(key)
        if row is not None:
            at_us = int(self.at_us[row])
            return None if at_us == NEVER_US else (self.value[row].copy(), at_us, self.names[row])
        packed = rows.get(reader, self.db, key)
        return None if packed is None else unpack_counters(packed)

    def put(
        self, reader: lmdb.Transaction, key: bytes, name: str, value: np.ndarray, at_us: int
    ) -> None:
        """Set the counters of one entity; NEVER_US removes it with the next save."""
        [row] = self.places(reader, [key], [name])
        self.value[row], self.at_us[row] = value, at_us
        self._changed.add(int(row))

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what changed."""
        keys = list(self._row_of)
        changed = sorted(self._changed, key=keys.__getitem__)
        at_us, value = self.at_us[changed], self.value[changed]
        blocks = np.concatenate([at_us[:, None], value.view(np.int64)], axis=1)
        packed = blocks.tobytes()
        puts = []
        for n, row in enumerate(changed):
            if at_us[n] == NEVER_US:
                writer.delete(keys[row], db=self.db)
            else:
                head = packed[n * _HEAD_BYTES : (n + 1) * _HEAD_BYTES]
                puts.append((keys[row], head + self.names[row].encode()))
        writer.cursor(self.db).putmulti(puts)

    def saved(self) -> None:
        """The save has been committed: rows may go where there are many."""
        self._changed.clear()
        if len(self.names) > MAX_ROWS:
            self.names.clear()
            self._row_of.clear()

    def items(self, reader: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
        """Every key and packed value as of the last save."""
        yield from rows.every(reader, self.db)

    def _load(self, reader: lmdb.Transaction, absent: dict[bytes, str]) -> None:
        start = len(self.names)
        self._grow(start + len(absent))
        self.value[start : start + len(absent)] = 0.0
        self.at_us[start : start + len(absent)] = NEVER_US
        for row, (key, name) in enumerate(absent.items(), start):
            self._row_of[key] = row
            self.names.append(name)
        for key, packed in rows.get_many(reader, self.db, sorted(absent)).items():
            row = self._row_of[key]
            self.value[row], self.at_us[row], _ = unpack_counters(packed)

    def _grow(self, num_rows: int) -> None:
        while len(self.at_us) < num_rows:
            self.value = np.concatenate([self.value, np.zeros_like(self.value)])
            self.at_us = np.concatenate([self.at_us, np.full_like(self.at_us, NEVER_US)])


def unpack_counters(packed: bytes) -> tuple[np.ndarray, int, str]:
    """Counters, their instant, and the entity's id. Shapes: (columns,)."""
    [at_us] = _AT.unpack_from(packed)
    value = np.frombuffer(packed, np.float64, NUM_COLUMNS, offset=_AT.size)
    return value, at_us, packed[_HEAD_BYTES:].decode()
