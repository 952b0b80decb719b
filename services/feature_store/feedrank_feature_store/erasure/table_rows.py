"""Takes readers out of the feature tables, while a daily run may be writing them anew."""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feedrank_core.contracts.features import Table
from feedrank_core.runtime.lake import Lake

ROWS = 1 << 16
LOCK = ".lock"


class TablesInUseError(RuntimeError):
    """A daily run is putting its tables online."""


@contextmanager
def only_writer(folder: Path, *, wait: bool) -> Iterator[None]:
    """Be the one who replaces tables. Blocks with `wait`. Raises: TablesInUseError without."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise TablesInUseError(f"a daily run puts the tables of {folder} online") from error
        yield
    finally:
        os.close(descriptor)


def remove_readers(folder: Path, user_ids: Collection[str]) -> Counter[str]:
    """Take these readers out of every table of readers; how many rows each had.

    The order of the rows that stay is kept. Call it inside `only_writer`.
    """
    removed: Counter[str] = Counter()
    ids = pa.array(sorted(user_ids), pa.string())
    for path in _tables_of_readers(folder):
        found = _rows_of(path, ids)
        if found:
            _rewrite(path, ids)
            removed += found
    return removed


class ErasedSince:
    """Knows who was erased since it was made: before a daily run opened the lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._respected = lake.changes.respected()

    def remove(self, folder: Path) -> None:
        """Take them out of the tables, which the run wrote from an older view of the lake."""
        tombstones = self._lake.tombstones()
        subjects = tombstones.not_among(self._respected)
        if subjects:
            ids = {i for path in _tables_of_readers(folder) for i in _distinct_ids(path)}
            remove_readers(folder, tombstones.among(ids, subjects))


def _tables_of_readers(folder: Path) -> list[Path]:
    paths = [folder / table.value for table in Table]
    return [p for p in paths if p.exists() and "user_id" in pq.read_schema(p).names]


def _distinct_ids(path: Path) -> set[str]:
    found: set[str] = set()
    for batch in pq.ParquetFile(path).iter_batches(ROWS, columns=["user_id"]):
        found.update(pc.unique(batch["user_id"]).to_pylist())
    return found


def _rows_of(path: Path, ids: pa.Array) -> Counter[str]:
    found: Counter[str] = Counter()
    for batch in pq.ParquetFile(path).iter_batches(ROWS, columns=["user_id"]):
        found.update(batch.filter(pc.is_in(batch["user_id"], ids))["user_id"].to_pylist())
    return found


def _rewrite(path: Path, ids: pa.Array) -> None:
    unfinished = path.with_name(f".{path.name}.erasing")
    source = pq.ParquetFile(path)
    with pq.ParquetWriter(unfinished, source.schema_arrow, compression="zstd") as sink:
        for batch in source.iter_batches(ROWS):
            sink.write_batch(batch.filter(pc.invert(pc.is_in(batch["user_id"], ids))))
    unfinished.replace(path)
