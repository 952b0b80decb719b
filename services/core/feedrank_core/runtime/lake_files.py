"""The Parquet files of a table as DuckDB reads them: by name where they differ, else by the first.

By name DuckDB opens every file whenever a statement names the table, before it reads a row.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence

import duckdb
import pyarrow.parquet as pq


class LakeFiles:
    """Remembers what each file's columns are: a file of the lake never changes."""

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}

    def read(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[str]
    ) -> duckdb.DuckDBPyRelation:
        """Their rows, with every column that any of them has."""
        # Else a `*` in the name of a folder would be a pattern.
        names = [glob.escape(file) for file in files]
        return connection.read_parquet(names, union_by_name=self._differ(files))

    def _differ(self, files: Sequence[str]) -> bool:
        for file in files:
            if file not in self._columns:
                columns = pq.read_schema(file)
                self._columns[file] = hash(tuple((field.name, field.type) for field in columns))
        return len({self._columns[file] for file in files}) > 1
