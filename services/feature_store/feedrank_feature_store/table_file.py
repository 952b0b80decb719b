"""A feature table while it is written: readers see the old file until the new one is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from feedrank_core.runtime.atomic import replacing
from feedrank_core.runtime.lake_schema import TIMESTAMP

from feedrank_feature_store.ports import Engine

log = structlog.get_logger(__name__)

ROW_GROUP = 100_000


class TableFile:
    """One Parquet file, filled from one expression or from several in a row."""

    def __init__(self, path: Path) -> None:
        self.num_rows = 0
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def append(self, engine: Engine, expression: ir.Table) -> None:
        """Write the rows of an expression after those already there. Blocks."""
        schema = pa.schema([f.with_type(_in_utc(f.type)) for f in expression.schema().to_pyarrow()])
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, schema, compression="zstd")
        for table in _full(engine.batches(expression, ROW_GROUP)):
            self._writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
            self.num_rows += table.num_rows

    def close(self) -> None:
        """Write the footer, without which the file cannot be read."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def table_file(path: Path) -> Iterator[TableFile]:
    """A feature table to be written, in the place of the one that is there until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, closing(TableFile(unfinished)) as file:
        yield file
    log.info("feature_table_written", table=path.name, num_rows=file.num_rows)


def _full(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of ROW_GROUP rows at least, save the last: engines give smaller batches."""
    waiting: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        waiting.append(batch)
        num_rows += batch.num_rows
        if num_rows >= ROW_GROUP:
            yield pa.Table.from_batches(waiting)
            waiting, num_rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """Instants are microseconds in UTC, though Spark's have no zone of their own."""
    if pa.types.is_list(kind):
        return pa.list_(_in_utc(kind.value_type))
    return TIMESTAMP if pa.types.is_timestamp(kind) else kind
