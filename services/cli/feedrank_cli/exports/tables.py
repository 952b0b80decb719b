"""Every table that can be exported, as a stream: views of the lake, its log, the feature tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
from feedrank_core.contracts.features import Table
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS, contract_schema, instant_column
from feedrank_core.runtime.lake_views import ITEM_TYPES, VIEWS

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation

LOG = "log/"
"""Before a topic: every record that the lake holds of it, repeated ones and old versions too."""
FEATURES = "features/"
"""Before a feature table: the file that the last daily run wrote."""
ROWS_AT_ONCE = 50_000
MEMORY_LIMIT = "1GB"
"""Of DuckDB, which spills beside the file beyond it; batches and writer come on top."""


def table_names() -> list[str]:
    """What can be exported."""
    logs = [LOG + t.name for t in TOPICS.values() if t.in_lake]
    return [*VIEWS, *logs, *(FEATURES + Path(table).stem for table in Table)]


def topic_of(name: str) -> str | None:
    """The topic whose rows a table holds, None of a table with columns of its own."""
    if name.startswith(FEATURES) or name == ITEM_TYPES:
        return None
    return VIEWS.get(name) or name.removeprefix(LOG)


@contextmanager
def stream(
    home: Home, name: str, *, as_of: datetime | None, where: str | None, beside: Path
) -> Iterator[pa.RecordBatchReader]:
    """The rows of a table, in no order. `beside` is the folder to spill in.

    Raises: CommandError for an unknown table or a condition that is none.
    """
    if name not in table_names():
        raise CommandError(
            f"There is no table {name!r}.", "Known: " + ", ".join(table_names()) + ".", code=2
        )
    if name.startswith(FEATURES) and as_of is not None:
        raise CommandError(
            f"{name} holds features as of the run that wrote it.",
            f"Leave --as-of out; `{invocation()} daily --date` computes them as of another day.",
            code=2,
        )
    with (
        TemporaryDirectory(prefix=".feedrank-export-", dir=beside) as spill,
        _connected(home, name, as_of) as (connection, select),
    ):
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET temp_directory = $spill", {"spill": spill})
        rows = connection.sql(select)
        yield (rows if where is None else _chosen(rows, where)).to_arrow_reader(ROWS_AT_ONCE)


def _chosen(rows: duckdb.DuckDBPyRelation, where: str) -> duckdb.DuckDBPyRelation:
    try:
        return rows.filter(where)
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise CommandError(
            f"--where {where!r}: {first}", f"Columns: {', '.join(rows.columns)}.", code=2
        ) from error


@contextmanager
def _connected(
    home: Home, name: str, as_of: datetime | None
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A connection and the SELECT of the whole table."""
    if name.startswith(FEATURES):
        path = home.features / f"{name.removeprefix(FEATURES)}.parquet"
        if not path.exists():
            raise CommandError(f"{path} is not there yet.", f"`{invocation()} daily` writes it.")
        with duckdb.connect() as connection:
            connection.register("_features", connection.read_parquet(str(path)))
            yield connection, "SELECT * FROM _features"
        return
    lake, topic, columns = Lake(home.lake), topic_of(name), "*"
    if topic is not None:
        columns = ", ".join(f'"{column}"' for column in contract_schema(topic).names)
    if topic is None or not name.startswith(LOG):
        with lake.connect(as_of) as connection:
            yield connection, f"SELECT {columns} FROM {name}"
        return
    with duckdb.connect() as connection:
        connection.register("_log", _log(lake, topic))
        moment = f"TIMESTAMPTZ '{as_of.astimezone(UTC).isoformat()}'" if as_of else "NULL"
        until = f" WHERE {instant_column(topic)} <= {moment}" if as_of else ""
        yield connection, f"SELECT {columns} FROM _log{until}"


def _log(lake: Lake, topic: str) -> pa.RecordBatchReader:
    partitions = range(NOT_FROM_BUS, TOPICS[topic].partitions)
    batches = lake.read(topic, starts={}, ends=dict.fromkeys(partitions, sys.maxsize))
    first = next(batches, None)
    if first is None:
        return pa.RecordBatchReader.from_batches(contract_schema(topic), [])
    return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
