"""Which random key stands for which reader: the one table that knows both.

Erasing a reader's rows here makes what is left in every other table nobody's; merging one reader
into another gives the keys of the one to the other from an instant on.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from feedrank_core.runtime.lake_schema import TIMESTAMP, USER_KEYS, USER_KEYS_SCHEMA

_APP_ID = "user_keys"
_ATTEMPTS = 20
_MAX_KNOWN = 500_000
"""Pairs kept in a dict for small batches: some 100 MB, most of a day's readers."""
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}
"""Delta's log would keep the least and the greatest user_id of every file, also of removed ones."""

Rows = list[dict[str, Any]]


class UserKeys:
    """user_id to user_key. Two writers never give one user two keys.

    Every change is a Delta commit that carries the transaction `user_keys` with the number that
    follows the one it read; the later of two writers is refused, reads again and finds the
    other's keys.
    """

    def __init__(self, root: Path, opened: Callable[[str], DeltaTable | None]) -> None:
        self._path = root / USER_KEYS
        self._open = opened
        self._known: dict[str, int] = {}
        self._version = -1
        self._ids = pa.array([], pa.string())
        self._keys = pa.array([], pa.int64())
        self._since = pa.array([], TIMESTAMP)
        self._moved: dict[str, Rows] = {}
        self._moved_ids = pa.array([], pa.string())

    def resolve(self, user_ids: Any, accepted_at: Any = None) -> pa.Array:
        """The key of each id, assigned where there was none. Shapes: (N,) int64.

        With `accepted_at` a row from before its reader was merged into another gets the key that
        went to the other. Raises: ValueError for a null id, OSError and DeltaError where the lake
        cannot be written.
        """
        whole = user_ids.combine_chunks() if isinstance(user_ids, pa.ChunkedArray) else user_ids
        if whole.null_count:
            raise ValueError("user_id: must not be null")
        former = self._former(whole, accepted_at)
        if former is None:
            encoded = pc.dictionary_encode(whole)
            return self._resolve_distinct(encoded.dictionary).take(encoded.indices)
        missing = pc.is_null(former)
        return pc.replace_with_mask(former, missing, self.resolve(whole.filter(missing)))

    def forget(self) -> None:
        """Read everything anew: another process moved or dropped keys."""
        self._known.clear()
        self._version = -1

    def keys_of(self, user_id: str, *, before: datetime) -> list[int]:
        """Every key whose rows are this reader's now, but those given for what came since then."""
        rows = [r for r in self.rows_naming(user_id) if r["until"] is None]
        return [r["user_key"] for r in rows if r["since"] is None or r["since"] < before]

    def first_key_of(self, user_id: str) -> list[int]:
        """A key for a reader who has none yet; none for one who has."""
        if any(row["until"] is None for row in self.rows_naming(user_id)):
            return []
        return self.resolve(pa.array([user_id])).to_pylist()

    def former_owners(self, keys: Collection[int]) -> list[tuple[str, datetime]]:
        """Whose these keys were, and until when."""
        rows = self._rows(pc.field("user_key").isin(list(keys)))
        return [(r["user_id"], r["until"]) for r in rows if r["until"] is not None]

    def holds_nothing_of(self, user_id: str, *, before: datetime) -> bool:
        """Whether a merge of this reader, ordered then, was carried out, or had nothing to move.

        Orders of intakes whose clocks differ may come in another order than their instants.
        """
        rows = self.rows_naming(user_id)
        if any(row["until"] is not None and row["until"] >= before for row in rows):
            return True
        return bool(rows) and not self.keys_of(user_id, before=before)

    def merges(self) -> set[tuple[str, str, datetime]]:
        """Who was merged into whom, and when, of all whose rows the lake still names.

        Where the other was merged on and then erased, whoever came next stands in their place.
        """
        self._refresh()
        moved = [row for of in self._moved.values() for row in of]
        heirs: dict[int, list[tuple[datetime, str]]] = defaultdict(list)
        for row in moved:
            if row["since"] is not None:
                heirs[row["user_key"]].append((row["since"], row["user_id"]))
        found = set()
        for row in moved:
            if row["until"] is not None:
                later = [heir for heir in heirs[row["user_key"]] if heir[0] >= row["until"]]
                found |= {(row["user_id"], min(later)[1], row["until"])} if later else set()
        return found

    def assign(self, user_id: str, since: datetime) -> int:
        """A key for what the reader did after `since`; the same one when asked again."""
        for _ in range(_ATTEMPTS):
            transaction = self._refresh()
            for row in self._moved.get(user_id, []):
                if row["since"] == since and row["until"] is None:
                    return row["user_key"]
            self._assign(pa.array([user_id]), transaction, since)
        raise OSError(f"{self._path}: other writers assigned keys {_ATTEMPTS} times in a row")

    def rewrite(self, keys: Collection[int], change: Callable[[Rows], Rows]) -> None:
        """Replace all rows of these keys by what `change` makes of them, in one commit."""
        if not keys:
            return
        predicate = f"user_key IN ({', '.join(map(str, sorted(keys)))})"
        for _ in range(_ATTEMPTS):
            transaction = self._refresh()
            table = self._open(USER_KEYS)
            held = self._rows(pc.field("user_key").isin(list(keys)))
            wanted = change([dict(row) for row in held])
            if table is None or held == wanted:
                return
            properties = CommitProperties(app_transactions=[Transaction(_APP_ID, transaction + 1)])
            try:
                write_deltalake(
                    table,
                    pa.Table.from_pylist(wanted, schema=USER_KEYS_SCHEMA),
                    mode="overwrite",
                    predicate=predicate,
                    commit_properties=properties,
                )
            except CommitFailedError:
                continue
            self.forget()
            return
        raise OSError(f"{self._path}: other writers changed keys {_ATTEMPTS} times in a row")

    def rows_naming(self, user_id: str) -> Rows:
        """Every row of the table with this id, of now and of before."""
        return self._rows(pc.field("user_id") == user_id)

    def _former(self, ids: pa.Array, accepted_at: Any) -> pa.Array | None:
        """The keys of rows that are another reader's by now, null elsewhere; None without any."""
        if accepted_at is None:
            return None
        self._refresh_once()
        moved = pc.is_in(ids, self._moved_ids)
        found: list[int | None] = [None] * len(ids)
        for n in np.flatnonzero(moved.to_numpy(zero_copy_only=False)):
            at = accepted_at[int(n)].as_py()
            for row in self._moved[ids[int(n)].as_py()]:
                since, until = row["since"], row["until"]
                if until is not None and at <= until and (since is None or since < at):
                    found[n] = row["user_key"]
                    break
        return pa.array(found, pa.int64()) if any(k is not None for k in found) else None

    def catch_up(self) -> None:
        """See what other processes assigned or dropped meanwhile."""
        self._refresh()

    def restore(self, batch: pa.RecordBatch, *, mark_inherited: bool = False) -> pa.RecordBatch:
        """The rows with `user_id` in the place of `user_key`, as of the last `catch_up`.

        Those of an erased reader are gone. Marked, rows have a last column `inherited`: whether
        somebody did it who was merged into the reader later.
        """
        index = batch.schema.get_field_index("user_key")
        place = pc.index_in(batch.column(index), self._keys)
        ids = self._ids.take(place)
        restored = batch.set_column(index, pa.field("user_id", pa.string()), ids)
        if mark_inherited:
            early = pc.less_equal(batch.column("accepted_at"), self._since.take(place))
            restored = restored.append_column("inherited", pc.fill_null(early, False))
        return restored.filter(pc.is_valid(ids)) if ids.null_count else restored

    def _resolve_distinct(self, ids: pa.Array) -> pa.Array:
        if len(ids) <= _MAX_KNOWN:
            known = [self._known.get(i) for i in ids.to_pylist()]
            if None not in known:
                return pa.array(known, pa.int64())
        for _ in range(_ATTEMPTS):
            transaction = self._refresh()
            keys = self._keys.take(pc.index_in(ids, self._ids))
            if not keys.null_count:
                self._remember(ids, keys)
                return keys
            self._assign(ids.filter(pc.is_null(keys)), transaction)
        raise OSError(f"{self._path}: other writers assigned keys {_ATTEMPTS} times in a row")

    def _assign(self, ids: pa.Array, transaction: int, since: datetime | None = None) -> None:
        """Commit keys for new ids, or nothing where another writer was faster."""
        random = pa.array(np.frombuffer(secrets.token_bytes(8 * len(ids)), dtype=np.int64))
        ended = [self._ended_at(i) if since is None else since for i in ids.to_pylist()]
        never = pa.nulls(len(ids), pa.timestamp("us", tz="UTC"))
        rows = pa.table([ids, random, pa.array(ended, never.type), never], schema=USER_KEYS_SCHEMA)
        properties = CommitProperties(app_transactions=[Transaction(_APP_ID, transaction + 1)])
        table = self._open(USER_KEYS)
        if table is None:
            DeltaTable.create(
                self._path, USER_KEYS_SCHEMA, mode="ignore", configuration=_NO_STATISTICS
            )
            return
        if (table.transaction_version(_APP_ID) or 0) != transaction:
            return
        try:
            write_deltalake(
                table, rows, mode="append", schema_mode="merge", commit_properties=properties
            )
        except CommitFailedError:
            return

    def _ended_at(self, user_id: str) -> datetime | None:
        """From when on a new key counts for someone who was merged into another before."""
        ends = [row["until"] for row in self._moved.get(user_id, []) if row["until"] is not None]
        return max(ends, default=None)

    def _refresh_once(self) -> None:
        if self._version < 0:
            self._refresh()

    def _refresh(self) -> int:
        """Read the table where it changed; the number of its last assignment."""
        table = self._open(USER_KEYS)
        if table is None:
            return 0
        if table.version() != self._version:
            # Read whole: 10 M users take some 400 MB, and one lookup serves a bulk import.
            rows = _completed(table.to_pyarrow_dataset().to_table())
            self._take(rows)
            self._version = table.version()
        return table.transaction_version(_APP_ID) or 0

    def _take(self, rows: pa.Table) -> None:
        plain = pc.and_(pc.is_null(rows["since"]), pc.is_null(rows["until"]))
        self._moved = defaultdict(list)
        # A reader's own key comes first, then those of whoever was merged into them.
        by_age = rows.filter(pc.invert(plain)).sort_by([("since", "ascending")]).to_pylist()
        for row in sorted(by_age, key=lambda row: row["since"] is not None):
            self._moved[row["user_id"]].append(row)
        self._moved_ids = pa.array(list(self._moved), pa.string())
        now = [row for of in self._moved.values() for row in of if row["until"] is None]
        late = pa.Table.from_pylist(now, schema=USER_KEYS_SCHEMA)
        current = pa.concat_tables([rows.filter(plain), late])
        self._ids = _flat(current.column("user_id"), pa.string())
        self._keys = _flat(current.column("user_key"), pa.int64())
        self._since = _flat(current.column("since"), TIMESTAMP)

    def _rows(self, filter: Any) -> Rows:  # noqa: A002
        table = self._open(USER_KEYS)
        if table is None:
            return []
        return _completed(table.to_pyarrow_dataset().to_table(filter=filter)).to_pylist()

    def _remember(self, ids: pa.Array, keys: pa.Array) -> None:
        if len(ids) > _MAX_KNOWN:
            return
        if len(self._known) + len(ids) > _MAX_KNOWN:
            self._known.clear()
        self._known.update(zip(ids.to_pylist(), keys.to_pylist(), strict=True))


def _completed(rows: pa.Table) -> pa.Table:
    """With the columns that a table written before there were merges lacks."""
    for field in USER_KEYS_SCHEMA:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(USER_KEYS_SCHEMA.names).cast(USER_KEYS_SCHEMA)


def _flat(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays([c.cast(kind) for c in column.chunks] or [pa.array([], kind)])
