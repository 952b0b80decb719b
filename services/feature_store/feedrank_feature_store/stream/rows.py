"""Reads of LMDB as bytes: its types also allow for views of memory, which are never asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import lmdb

Database = lmdb._Database


def get(txn: lmdb.Transaction, db: Database, key: bytes) -> bytes | None:
    """The value of a key, None where there is none."""
    return cast("bytes | None", txn.get(key, db=db))


def get_many(txn: lmdb.Transaction, db: Database, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The values of those keys that have one, by one pass over sorted `keys`."""
    return cast("dict[bytes, bytes]", dict(txn.cursor(db).getmulti(keys))) if keys else {}


def every(txn: lmdb.Transaction, db: Database) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values, sorted by key."""
    yield from cast("Iterator[tuple[bytes, bytes]]", iter(txn.cursor(db)))


def after(txn: lmdb.Transaction, db: Database, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from `start` on."""
    cursor = txn.cursor(db)
    if cursor.set_range(start):
        yield from cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())


def num_entries(txn: lmdb.Transaction, db: Database) -> int:
    """How many keys there are."""
    return txn.stat(db)["entries"]
