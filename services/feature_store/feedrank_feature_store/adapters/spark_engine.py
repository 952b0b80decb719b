"""Spark, for logs that outgrow one machine: the same expressions, and the lake's own SQL views.

Spark reads the Parquet files that make up the lake's tables now; the views' SQL is translated
from DuckDB's dialect, so that an event is deduplicated by one definition in both engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import USER_KEYS, USER_KEYS_SCHEMA, table_schema
from feedrank_core.runtime.lake_views import VIEWS, registered, view_statements
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

_OPTIONS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ON_ONE_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # Spark's 200 are for clusters: an empty task costs milliseconds, and there are thousands.
    "spark.sql.shuffle.partitions": "8",
}


class SparkEngine:
    """The `Engine` of a cluster, or of this machine's cores where `master` is `local[*]`.

    `scratch` must be a folder that every worker sees, as must the lake.
    """

    def __init__(
        self, lake: Lake, as_of: datetime, scratch: Path, *, master: str, memory_gb: float
    ) -> None:
        self._scratch = scratch
        self._numbers = count()
        builder = SparkSession.builder.master(master).appName("feedrank-features")
        options = _OPTIONS | {
            "spark.driver.memory": f"{memory_gb * 1024:.0f}m",
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            "spark.local.dir": str(scratch / "spilled"),
        }
        options |= _ON_ONE_MACHINE if master.startswith("local") else {}
        for name, value in options.items():
            builder = builder.config(name, value)
        self._session = builder.getOrCreate()
        self._session.sql(
            "CREATE OR REPLACE TEMPORARY FUNCTION epoch_us(at TIMESTAMP) RETURNS BIGINT"
            " RETURN unix_micros(at)"
        )
        self._backend: Any = ibis.pyspark.connect(self._session)
        self._register(lake, USER_KEYS, USER_KEYS_SCHEMA)
        for topic in set(VIEWS.values()):
            self._register(lake, topic, table_schema(topic))
        for view, sql in view_statements(as_of).items():
            [translated] = sqlglot.transpile(sql, read="duckdb", write="spark")
            self._session.sql(f"CREATE OR REPLACE TEMPORARY VIEW {view} AS {translated}")

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.stop()

    def view(self, name: str) -> ir.Table:
        """A view of the lake."""
        return self._backend.table(name)

    def cut(self, by: str, **tables: ir.Table) -> WholePieces:
        """One piece: Spark cuts its work by itself."""
        return WholePieces({name: self._written(t) for name, t in tables.items()})

    @contextmanager
    def held(self, expression: ir.Table) -> Iterator[ir.Table]:
        """In files below the scratch folder: a cached plan would be planned again and again."""
        yield self._written(expression)

    def batches(self, expression: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
        """The workers write files, in the order of the rows, and these are read in turn."""
        for part in sorted(self._files(expression).glob("part-*.parquet")):
            yield from pq.ParquetFile(part).iter_batches(rows)

    def _written(self, expression: ir.Table) -> ir.Table:
        return self._backend.read_parquet(str(self._files(expression)))

    def _files(self, expression: ir.Table) -> Path:
        folder = self._scratch / f"held_{next(self._numbers)}"
        self._backend.to_parquet_dir(expression, folder)
        return folder

    def _register(self, lake: Lake, name: str, schema: pa.Schema) -> None:
        """A table of the lake; columns that its older files lack are null."""
        spark_schema = from_arrow_schema(schema)
        if files := lake.files(name):
            reader = self._session.read.schema(spark_schema)
            frame = reader.option("basePath", str(lake.root / name)).parquet(*files)
        else:
            frame = self._session.createDataFrame([], spark_schema)
        frame.createOrReplaceTempView(registered(name))


class WholePieces:
    """One piece of everything."""

    def __init__(self, tables: Mapping[str, ir.Table]) -> None:
        self._tables = tables

    def __iter__(self) -> Iterator[Mapping[str, ir.Table]]:
        yield self._tables

    def whole(self, name: str) -> ir.Table:
        """The table itself."""
        return self._tables[name]
