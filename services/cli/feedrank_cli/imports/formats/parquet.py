"""Parquet: any columns with a mapping; without one the contracts', a file or folder a topic.

Files are read a stretch of rows at a time, however large their row groups are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.topics import TOPICS

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.pieces import ROWS_AT_ONCE, Piece, Source, files_below

HELP = "Parquet, a file or a folder: items.parquet, users.parquet, ..., or any with --mapping"
ROUTES = ("lake", "intake")
TOPIC_KEY = b"feedrank.topic"
"""Where an export writes what its rows are, so that its file may have any name."""
PIECE_BYTES = 64 << 20
MAX_PIECE_ROWS = 500_000
_READ_BYTES = 1 << 20
_ORDER = ("items", "users", "slates", "impressions", "interactions")


def sources(path: Path, topic: str | None) -> list[Source]:
    """The files, those of items and readers first. Raises: CommandError, before any is read."""
    found = [_source(file, topic) for file in files_below(path, (".parquet",))]
    return sorted(found, key=lambda source: _rank(source.topic))


@dataclass(frozen=True)
class ParquetSource(Source):
    """A Parquet file; `size` counts rows."""

    path: Path
    size: int
    topic: str | None
    schema: pa.Schema
    row_bytes: float

    def read(self, start: int, *, columns: frozenset[str] | None) -> Iterator[Piece]:
        """Rows behind `start`, as tables; fewer at once where a mapping takes them one by one."""
        at_once = min(MAX_PIECE_ROWS, int(PIECE_BYTES / self.row_bytes) + 1)
        if columns is not None:
            at_once = min(at_once, ROWS_AT_ONCE)
        names = None if columns is None else [n for n in self.schema.names if n in columns]
        number, told = 0, 0
        try:
            with pq.ParquetFile(self.path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
                for batch in file.iter_batches(at_once, columns=names):
                    number += batch.num_rows
                    if number <= start:
                        continue
                    kept = batch.slice(max(0, start - (number - batch.num_rows)))
                    table = pa.Table.from_batches([kept])
                    yield Piece(end=number, advance=number - told, table=table)
                    told = number
        except (pa.ArrowException, OSError) as error:
            raise CommandError(
                f"{self.path} cannot be read on behind row {number}: {error}.",
                "What came before is kept; give the whole file, and import again.",
            ) from error


def _source(path: Path, topic: str | None) -> ParquetSource:
    try:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise CommandError(f"{path} is not readable Parquet: {error}.", code=2) from error
    groups = (metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    row_bytes = max(1.0, sum(groups) / max(1, metadata.num_rows))
    named = (schema.metadata or {}).get(TOPIC_KEY, b"").decode()
    names = (topic, named, path.stem, path.parent.stem)
    known = next((name for name in names if name in TOPICS), None)
    return ParquetSource(path, metadata.num_rows, known, schema, row_bytes)


def _rank(topic: str | None) -> int:
    return _ORDER.index(topic) if topic in _ORDER else len(_ORDER)
