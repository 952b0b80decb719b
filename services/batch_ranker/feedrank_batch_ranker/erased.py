"""Readers who were erased while the run ranked them: they left the users table meanwhile."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from feedrank_core.contracts.redis_keys import CANDIDATES
from redis import Redis

ROWS = 1 << 16


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
        its sweep is found here.
        """
        if not self.is_replaced:
            return 0
        gone = _ids(self._began) - _ids(pq.ParquetFile(self._path))
        for user_id in gone:
            cache.delete(CANDIDATES.key(bundle=bundle_id, user=user_id))
        return len(gone)


def _ids(table: pq.ParquetFile) -> set[str]:
    batches = table.iter_batches(ROWS, columns=["user_id"])
    return {user_id for batch in batches for user_id in batch["user_id"].to_pylist()}
