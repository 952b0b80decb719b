"""DuckDB within a memory limit: what does not fit goes to a scratch folder.

DuckDB spills sorts, joins and aggregates, but an aggregate of 55 sums a reader spills badly, and
a window not at all well. So a large log is first dealt out into files by a hash of the entity,
and every later step works on one file's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

PIECE = "piece"
"""The column that says which piece a row belongs to."""
ROWS_HELD = 32_768
"""Rows that a piece's file and each thread hold before they write, some 30 MB of items; DuckDB's
own 122,880 a file and 524,288 a thread are gigabytes of them where there are many pieces."""


class DuckDbEngine:
    """The `Engine` of one machine, over a connection of `Lake.connect`, which it closes.

    What does not fit into `memory_gb` goes below `scratch`, whose owner empties it. With
    `num_pieces` tables are cut into so many. Raises: duckdb.Error where memory and disk
    together do not hold a piece.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        scratch: Path,
        *,
        memory_gb: float = 4.0,
        num_pieces: int = 1,
    ) -> None:
        self._connection = connection
        self._scratch = scratch
        self._num_pieces = num_pieces
        self._numbers = count()
        connection.execute(f"SET memory_limit = '{memory_gb * 1000:.0f}MB'")
        connection.execute(f"SET temp_directory = '{scratch / 'spilled'}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"SET partitioned_write_flush_threshold = {ROWS_HELD}")
        self._backend: Any = ibis.duckdb.from_connection(connection)

    def __enter__(self) -> DuckDbEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def view(self, name: str) -> ir.Table:
        """A view of the lake."""
        return self._backend.table(name)

    def cut(self, by: str, **tables: ir.Table) -> FilePieces | TablePieces:
        """In files below the scratch folder, or in one piece where everything fits."""
        if self._num_pieces == 1:
            return TablePieces({name: self._store(t) for name, t in tables.items()})
        folder = self._scratch / f"by_{by}"
        folder.mkdir()
        dealt = {name: self._deal(t, by, folder / name) for name, t in tables.items()}
        return FilePieces(dealt, self._num_pieces)

    @contextmanager
    def held(self, expression: ir.Table) -> Iterator[ir.Table]:
        """In a temporary table, which DuckDB spills where it must."""
        stored = self._store(expression)
        try:
            yield stored
        finally:
            self._connection.execute(f"DROP TABLE {stored.get_name()}")

    def batches(self, expression: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
        """Streamed from the last operator."""
        yield from self._connection.execute(_sql(expression)).to_arrow_reader(rows)

    def _store(self, expression: ir.Table) -> ir.Table:
        return self._backend.create_table(f"held_{next(self._numbers)}", expression, temp=True)

    def _deal(self, table: ir.Table, by: str, folder: Path) -> ir.Table:
        piece = (table[by].hash() % self._num_pieces).abs().cast("int32")
        sql = _sql(table.mutate(**{PIECE: piece}))
        self._connection.execute(
            f"COPY ({sql}) TO '{folder}'"
            f" (FORMAT parquet, PARTITION_BY ({PIECE}), ROW_GROUP_SIZE {ROWS_HELD})"
        )
        if not any(folder.glob("*/*.parquet")):
            return self._store(table.mutate(**{PIECE: piece}))
        return self._backend.read_parquet(f"{folder}/*/*.parquet", hive_partitioning=True)


def _sql(expression: ir.Table) -> str:
    return ibis.to_sql(expression, dialect="duckdb", pretty=False)


class TablePieces:
    """One piece, of temporary tables."""

    def __init__(self, tables: Mapping[str, ir.Table]) -> None:
        self._tables = tables

    def __iter__(self) -> Iterator[Mapping[str, ir.Table]]:
        yield self._tables

    def whole(self, name: str) -> ir.Table:
        """The table itself."""
        return self._tables[name]


class FilePieces:
    """Parquet files, a folder a piece."""

    def __init__(self, tables: Mapping[str, ir.Table], num_pieces: int) -> None:
        self._tables = tables
        self._num_pieces = num_pieces

    def __iter__(self) -> Iterator[Mapping[str, ir.Table]]:
        for number in range(self._num_pieces):
            yield {
                name: table.filter(table[PIECE] == number).drop(PIECE)
                for name, table in self._tables.items()
            }

    def whole(self, name: str) -> ir.Table:
        """The files of all pieces."""
        return self._tables[name].drop(PIECE)
