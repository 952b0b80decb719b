"""The lake: what the bus carried, kept in Delta tables, one a topic.

Writers append; readers open a DuckDB connection with one view a topic. A row that came from the
bus is in the lake exactly once: the append and the position it reaches are one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_changes import ChangeBook, Tombstones
from feedrank_core.runtime.lake_errors import LakeError
from feedrank_core.runtime.lake_files import LakeFiles
from feedrank_core.runtime.lake_keys import UserKeys
from feedrank_core.runtime.lake_locks import LakeLocks
from feedrank_core.runtime.lake_positions import (
    IMPORTS,
    between,
    beyond,
    cut_sql,
    numbered,
    partition_app_id,
    position_of,
)
from feedrank_core.runtime.lake_schema import (
    NOT_FROM_BUS,
    US_PER_DAY,
    USER_KEYS,
    USER_KEYS_SCHEMA,
    contract_table,
    has_user,
    instant_column,
    table_schema,
)
from feedrank_core.runtime.lake_upkeep import Upkeep
from feedrank_core.runtime.lake_views import VIEWS, registered, view_statements

_ATTEMPTS = 10
STATISTICS = {"delta.dataSkippingStatsColumns": "accepted_at,topic_partition,topic_offset"}
"""Of readers' rows Delta's log keeps no more: it outlives the files, and so an erasure."""


class Lake:
    """Delta tables below one folder. Not for use from two threads at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locks = LakeLocks(root)
        self._tables: dict[str, DeltaTable] = {}
        self._files = LakeFiles()
        self.keys = UserKeys(root, self.table)
        self.changes = ChangeBook(root, self.table)
        self.upkeep = Upkeep(root, self.table, self.locks)

    def append(
        self,
        topic: str,
        rows: pa.Table | Sequence[Mapping[str, Any]],
        *,
        app_id: str | None = None,
        offset: int | None = None,
        positions: Mapping[int, int] | None = None,
        writer: str = "lake_sink",
    ) -> int:
        """Keep contract rows (with `user_id`), all or none; how many were new.

        With `app_id` and `offset` the call is kept only if `offset` is beyond the one last kept
        for `app_id`. With `positions`, by partition the offset that follows the rows, rows that
        a former call of `writer` kept are left out. Both hold against a second writer.

        Rows of readers who were erased since are left out too, whatever writes them.

        Raises: ValueError naming the column that does not fit, LakeError where the lake cannot
        be written (a full disk, say).
        """
        if TOPICS.get(topic) is None:
            raise ValueError(f"topic: {topic} is not in the registry of topics")
        table = contract_table(topic, rows)
        wanted = {partition_app_id(writer, topic, p): o for p, o in (positions or {}).items()}
        if app_id is not None and offset is not None:
            wanted[app_id] = offset
        try:
            with self.locks.appending():
                return self._append(topic, table, wanted, positions is not None, writer)
        except (OSError, DeltaError) as error:
            raise LakeError(
                f"lake table {self.root / topic} cannot be written, nothing of the batch was kept:"
                f" {error}; free space or mend the folder's permissions"
            ) from error

    def transaction_offset(self, topic: str, app_id: str) -> int | None:
        """The offset that `app_id` last committed with its rows, None before its first."""
        table = self.table(topic)
        return None if table is None else table.transaction_version(app_id)

    def positions(self, topic: str, *, writer: str = "lake_sink") -> dict[int, int]:
        """By partition of the topic, the first offset that is not in the lake."""
        offsets = {
            p: self.transaction_offset(topic, partition_app_id(writer, topic, p))
            for p in range(TOPICS[topic].partitions)
        }
        return {p: o for p, o in offsets.items() if o is not None}

    def imported(self, topic: str) -> int:
        """The offset that the next imported row of the topic will get."""
        return self.transaction_offset(topic, partition_app_id(IMPORTS, topic, NOT_FROM_BUS)) or 0

    def files(self, name: str) -> list[str]:
        """The Parquet files that make up a table now; none where nobody wrote it yet."""
        table = self.table(name)
        # Delta quotes the folder's name as in an address.
        return [] if table is None else [unquote(uri) for uri in table.file_uris()]

    def num_rows(self, topic: str) -> int:
        """How many records the topic's table holds, by its files' own counts."""
        table = self.table(topic)
        return 0 if table is None else table.to_pyarrow_dataset().count_rows()

    def read(
        self,
        topic: str,
        *,
        starts: Mapping[int, int],
        ends: Mapping[int, int],
        mark_inherited: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Every row of each partition in `ends`, from its start (or 0) up to its end.

        In the contract's columns, those that the table lacks as null, in no order, duplicates too;
        rows of an erased reader are gone.
        Imports are the partition NOT_FROM_BUS. `mark_inherited` as in `UserKeys.restore`.
        """
        table = self.table(topic)
        if table is None:
            return
        self.keys.catch_up()
        held = table.to_pyarrow_dataset(schema=table_schema(topic))
        rows = held.scanner(filter=between(starts, ends))
        for batch in rows.to_batches():
            if batch.num_rows:
                if has_user(topic):
                    batch = self.keys.restore(batch, mark_inherited=mark_inherited)
                yield batch

    def tombstones(self) -> Tombstones:
        """Whose records must not be used any more, as of this call."""
        self.changes.refresh()
        return self.changes.tombstones

    def connect(
        self,
        as_of: datetime | None = None,
        *,
        until: Mapping[str, Mapping[int, int]] | None = None,
    ) -> duckdb.DuckDBPyConnection:
        """A connection with the views of lake_views.VIEWS.

        Readers and items as last published, events once each, each version of a profile, and
        the type an item was first published as; with `as_of` (aware) only what was accepted by
        then; with `until`, by topic and partition, only records before these offsets. The views
        read the tables as they are at this call.
        """
        con = duckdb.connect()
        self._register(con, USER_KEYS, USER_KEYS_SCHEMA)
        sources = {t: self._register(con, t, table_schema(t)) for t in set(VIEWS.values())}
        for topic, source in sources.items() if until is not None else ():
            sources[topic] = f"{source}_cut"
            cut = cut_sql(source, (until or {}).get(topic, {}))
            con.execute(f"CREATE VIEW {sources[topic]} AS {cut}")
        for view, select in view_statements(as_of, sources).items():
            con.execute(f"CREATE VIEW {view} AS {select}")
        return con

    def table(self, name: str) -> DeltaTable | None:
        """The table as it is now, None where nobody wrote it yet."""
        known = self._tables.get(name)
        if known is not None:
            known.update_incremental()
            return known
        path = self.root / name
        if not DeltaTable.is_deltatable(str(path)):
            return None
        return self._tables.setdefault(name, DeltaTable(path))

    def compact(self, *, first_kept: date | None = None) -> dict[str, int]:
        """Join small files; by table, how many were replaced.

        With `first_kept`, events of days before it go; versions of items and readers never do,
        since the last one is needed however old it is. Appends and reads go on meanwhile.
        Raises: LakeError.
        """
        return self.upkeep.compact(first_kept)

    def _append(
        self, topic: str, table: pa.Table, wanted: dict[str, int], by_row: bool, writer: str
    ) -> int:
        for _ in range(_ATTEMPTS):
            target = self.table(topic)
            if target is None:
                path = self.root / topic
                path.mkdir(parents=True, exist_ok=True)
                DeltaTable.create(
                    path,
                    table_schema(topic),
                    mode="ignore",
                    partition_by=["date"],
                    configuration=STATISTICS if has_user(topic) else None,
                )
                continue
            held = {a: target.transaction_version(a) for a in wanted}
            ahead = {a: o for a, o in wanted.items() if position_of(held[a]) < o}
            if wanted and not ahead:
                return 0
            new = beyond(table, topic, held, writer) if by_row else table
            new = self._kept(topic, new)
            if not new.num_rows and not ahead:
                return 0
            imports = partition_app_id(IMPORTS, topic, NOT_FROM_BUS)
            start = target.transaction_version(imports) or 0
            new, end = numbered(new, start)
            if end > start:
                ahead[imports] = end
            transactions = [Transaction(a, o) for a, o in ahead.items()]
            try:
                write_deltalake(
                    target,
                    self._with_user_keys(topic, new),
                    mode="append",
                    schema_mode="merge",
                    commit_properties=CommitProperties(app_transactions=transactions),
                )
            except CommitFailedError:
                continue
            return new.num_rows
        raise OSError(f"other writers committed {_ATTEMPTS} times in a row")

    def _kept(self, topic: str, table: pa.Table) -> pa.Table:
        """The rows of readers who were not erased since."""
        if not has_user(topic):
            return table
        if self.changes.refresh():
            self.keys.forget()
        return self.changes.tombstones.kept(table)

    def _with_user_keys(self, topic: str, table: pa.Table) -> pa.Table:
        if not has_user(topic):
            return table
        keys = self.keys.resolve(table.column("user_id"), table.column("accepted_at"))
        index = table.schema.get_field_index("user_id")
        return table.set_column(index, pa.field("user_key", pa.int64()), keys)

    def _register(self, con: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> str:
        """Register a table as `_<name>`, with the columns of its schema that it lacks as null.

        DuckDB reads the files itself: what pyarrow's scan of a dataset reads ahead is gigabytes
        of wide rows that DuckDB's memory limit does not know of.
        """
        held, files = registered(name), self.files(name)
        empty = con.from_arrow(schema.empty_table())
        if not files:
            empty.create(held)
            return held
        rows = self._files.read(con, files)
        wanted = dict(zip(empty.columns, empty.types, strict=True))
        lacking = wanted.keys() - set(rows.columns)
        added = [f"{_filled(name, c)}::{wanted[c]} AS {c}" for c in wanted if c in lacking]
        rows.project(", ".join(["*", *added])).create_view(held)
        return held


def _filled(table: str, column: str) -> str:
    """What a column holds that is not in a table's files: the day of their folder, or nothing.

    The day by the instant: a folder above the lake could be named `date=...` as well.
    """
    if column != "date":
        return "NULL"
    return f"(DATE '1970-01-01' + (epoch_us({instant_column(table)}) // {US_PER_DAY})::INTEGER)"
