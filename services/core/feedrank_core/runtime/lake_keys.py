"""Which random key stands for which reader: the one table that knows both.

Erasing a reader's row here makes what is left in every other table nobody's.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from feedrank_core.runtime.lake_schema import USER_KEYS, USER_KEYS_SCHEMA

_APP_ID = "user_keys"
_ATTEMPTS = 20
_MAX_KNOWN = 500_000
"""Pairs kept in a dict for small batches: some 100 MB, most of a day's readers."""


class UserKeys:
    """user_id to user_key. Two writers never give one user two keys.

    Every assignment is a Delta commit that carries the transaction `user_keys` with the number
    that follows the one it read; the later of two writers is refused, reads again and finds the
    other's keys.
    """

    def __init__(self, root: Path, opened: Callable[[str], DeltaTable | None]) -> None:
        self._path = root / USER_KEYS
        self._open = opened
        self._known: dict[str, int] = {}
        self._version = -1
        self._ids = pa.array([], pa.string())
        self._keys = pa.array([], pa.int64())

    def resolve(self, user_ids: Any) -> pa.Array:
        """The key of each id, assigned where there was none. Shapes: (N,) int64.

        Raises: ValueError for a null id, OSError and DeltaError where the lake cannot be written.
        """
        whole = user_ids.combine_chunks() if isinstance(user_ids, pa.ChunkedArray) else user_ids
        if whole.null_count:
            raise ValueError("user_id: must not be null")
        encoded = pc.dictionary_encode(whole)
        return self._resolve_distinct(encoded.dictionary).take(encoded.indices)

    def restore(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with `user_id` in the place of `user_key`; those of an erased reader gone."""
        self._refresh()
        index = batch.schema.get_field_index("user_key")
        ids = self._ids.take(pc.index_in(batch.column(index), self._keys))
        restored = batch.set_column(index, pa.field("user_id", pa.string()), ids)
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

    def _assign(self, ids: pa.Array, transaction: int) -> None:
        """Commit keys for new ids, or nothing where another writer was faster."""
        random = np.frombuffer(secrets.token_bytes(8 * len(ids)), dtype=np.int64)
        rows = pa.table([ids, pa.array(random)], schema=USER_KEYS_SCHEMA)
        properties = CommitProperties(app_transactions=[Transaction(_APP_ID, transaction + 1)])
        table = self._open(USER_KEYS)
        if table is None:
            DeltaTable.create(self._path, USER_KEYS_SCHEMA, mode="ignore")
            return
        if (table.transaction_version(_APP_ID) or 0) != transaction:
            return
        try:
            write_deltalake(table, rows, mode="append", commit_properties=properties)
        except CommitFailedError:
            return

    def _refresh(self) -> int:
        """Read the table where it changed; the number of its last assignment."""
        table = self._open(USER_KEYS)
        if table is None:
            return 0
        if table.version() != self._version:
            # Read whole: 10 M users take some 400 MB, and one lookup serves a bulk import.
            rows = table.to_pyarrow_dataset().to_table().combine_chunks()
            self._ids = _flat(rows.column("user_id"), pa.string())
            self._keys = _flat(rows.column("user_key"), pa.int64())
            self._version = table.version()
        return table.transaction_version(_APP_ID) or 0

    def _remember(self, ids: pa.Array, keys: pa.Array) -> None:
        if len(ids) > _MAX_KNOWN:
            return
        if len(self._known) + len(ids) > _MAX_KNOWN:
            self._known.clear()
        self._known.update(zip(ids.to_pylist(), keys.to_pylist(), strict=True))


def _flat(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays([c.cast(kind) for c in column.chunks] or [pa.array([], kind)])
