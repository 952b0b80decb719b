"""Readers who were erased while they were ranked: they left the users table meanwhile."""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feedrank_core.contracts.redis_keys import CANDIDATES
from redis import Redis

ROWS = 1 << 16
NAMES = 1 << 20
"""Of keys that are held against the users table at once."""
SCAN_COUNT = 5000


class RankedUsers:
    """The users table as it was when the run began, whatever became of the file since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = pq.ParquetFile(path)
        self._inode = path.stat().st_ino

    @property
    def is_replaced(self) -> bool:
        """Whether another table lies there by now."""
        return self._path.stat().st_ino != self._inode

    def forget_erased(self, cache: Redis, bundle_id: str) -> int:
        """Delete candidates of those who are in the table no more; how many that were.

        An erasure takes them out of the table before it sweeps the cache: what was written after
        its sweep is found here. A table of an earlier time lacks those who came since.
        """
        if not self.is_replaced or is_older(self._path, _as_of(self._began)):
            return 0
        gone = _ids(self._began) - _ids(pq.ParquetFile(self._path))
        for user_id in gone:
            cache.delete(CANDIDATES.key(bundle=bundle_id, user=user_id))
        return len(gone)


def is_older(users: Path, as_of: datetime | None) -> bool:
    """Whether the users table is of an earlier time; also where it has no row to tell."""
    found = _as_of(pq.ParquetFile(users))
    return found is None or (as_of is not None and found < as_of)


def forget_absent(cache: Redis, users: Path, is_over: Callable[[], bool]) -> int:
    """Delete candidates, of any bundle, of those who are not in the users table; how many.

    Ends early once it is over. The table is read after the names: whoever is written from now on
    is in the table of then. Raises: OSError.
    """
    num_deleted = 0
    every = cache.scan_iter(match=CANDIDATES.key(bundle="*", user="*"), count=SCAN_COUNT)
    names = takewhile(lambda _: not is_over(), every)
    while page := list(islice(names, NAMES)):
        # As bytes: a name may be no text.
        of = pa.array([name.split(b":", 2)[2] for name in page], pa.binary())
        known = pc.is_in(of, pq.read_table(users, columns=["user_id"])["user_id"].cast(pa.binary()))
        absent = [name for name, there in zip(page, known.to_pylist(), strict=True) if not there]
        for start in range(0, len(absent), SCAN_COUNT):
            cache.delete(*absent[start : start + SCAN_COUNT])
        num_deleted += len(absent)
    return num_deleted


def _as_of(table: pq.ParquetFile) -> datetime | None:
    """The time of a users table, which every row of it has."""
    first = next(table.iter_batches(1, columns=["as_of"]), None)
    return None if first is None or not len(first) else first["as_of"][0].as_py()


def _ids(table: pq.ParquetFile) -> set[str]:
    batches = table.iter_batches(ROWS, columns=["user_id"])
    return {user_id for batch in batches for user_id in batch["user_id"].to_pylist()}
