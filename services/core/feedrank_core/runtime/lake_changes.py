"""The lake's book of erasures and merges: whose records are never taken in again.

A row an order, without the reader's id. A row of an erasure is the tombstone: it stays for ever,
and whatever arrives later with an earlier instant of acceptance is left out, from wherever it
comes. So a replay of the bus, an old export or a second sink cannot bring a reader back.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from feedrank_core.contracts.user_changes import ChangeKind
from feedrank_core.runtime.lake_errors import WrongKeyError
from feedrank_core.runtime.lake_schema import TIMESTAMP, USER_CHANGES, USER_CHANGES_SCHEMA
from feedrank_core.runtime.subjects import Subjects

_ATTEMPTS = 20


class Progress(StrEnum):
    """How far the lake is with an order."""

    BEGUN = "begun"
    """Records from before it are refused; those in the lake may still be read."""
    APPLIED = "applied"
    """No view shows them; a sink that was in the middle of a batch may still add some."""
    SETTLED = "settled"
    """The rows are gone; files that held them lie about for readers that are not done."""
    DONE = "done"


class Tombstones:
    """Who was erased, and when last. Immutable."""

    def __init__(self, subjects: Subjects | None, erased_at: Mapping[str, datetime]) -> None:
        self._subjects = subjects
        self._erased_at = erased_at
        self._latest = max(erased_at.values(), default=None)

    @property
    def latest(self) -> datetime | None:
        """The last erasure of all: what was accepted later concerns no tombstone."""
        return self._latest

    def covers(self, user_id: str, accepted_at: datetime) -> bool:
        """Whether a record of this reader, accepted then, must not be used."""
        if self._latest is None or accepted_at > self._latest:
            return False
        erased_at = self._at(user_id)
        return erased_at is not None and accepted_at <= erased_at

    def not_among(self, respected: Mapping[str, datetime]) -> frozenset[str]:
        """The subjects whose last erasure is not in `respected` (subject and instant)."""
        erased = self._erased_at.items()
        return frozenset(subject for subject, at in erased if respected.get(subject) != at)

    def among(self, user_ids: Iterable[str], subjects: Collection[str]) -> set[str]:
        """Those of the readers that are one of the subjects."""
        if not subjects:
            return set()
        assert self._subjects is not None
        return {user_id for user_id in user_ids if self._subjects.of(user_id) in subjects}

    def kept(self, rows: pa.Table) -> pa.Table:
        """The rows (`user_id`, `accepted_at`) that may be used."""
        if self._latest is None or not rows.num_rows:
            return rows
        early = pc.less_equal(rows["accepted_at"], pa.scalar(self._latest, TIMESTAMP))
        if not pc.any(early).as_py():
            return rows
        ids = rows.filter(early)["user_id"]
        erased_at = {i: at for i in pc.unique(ids).to_pylist() if (at := self._at(i)) is not None}
        if not erased_at:
            return rows
        at = pc.index_in(rows["user_id"], pa.array(list(erased_at)))
        limit = pa.array(list(erased_at.values()), TIMESTAMP).take(at.combine_chunks())
        gone = pc.less_equal(rows["accepted_at"], limit)
        return rows.filter(pc.invert(pc.fill_null(gone, False)))

    def _at(self, user_id: str) -> datetime | None:
        assert self._subjects is not None
        return self._erased_at.get(self._subjects.of(user_id))


NOBODY = Tombstones(None, {})
"""Of a lake where nobody was ever erased."""


class ChangeBook:
    """Reads and writes the book. Not for use from two threads at once."""

    def __init__(self, root: Path, opened: Callable[[str], DeltaTable | None]) -> None:
        self._root = root
        self._open = opened
        self._version = -1
        self._tombstones = NOBODY

    def refresh(self) -> bool:
        """Read the book where it changed; whether it did. Raises: WrongKeyError."""
        table = self._open(USER_CHANGES)
        if table is None or table.version() == self._version:
            return False
        rows = self.rows()
        subjects = self._of_the_key(rows)
        erased_at: dict[str, datetime] = {}
        for row in rows:
            if row["kind"] == ChangeKind.ERASE:
                known = erased_at.get(row["subject"], row["at"])
                erased_at[row["subject"]] = max(known, row["at"])
        self._tombstones = Tombstones(subjects, erased_at)
        self._version = table.version()
        return True

    @property
    def version(self) -> int:
        """Of the book as of the last `refresh`; -1 where there was none yet."""
        return self._version

    def subjects(self) -> Subjects:
        """Of the lake's key as it is now. Raises: WrongKeyError."""
        return self._of_the_key(self.rows())

    @property
    def tombstones(self) -> Tombstones:
        """Those of the last `refresh`."""
        return self._tombstones

    def respected(self) -> dict[str, datetime]:
        """The erasures that the views show already: subjects and instants."""
        erased: dict[str, datetime] = {}
        for row in self.rows():
            if row["kind"] == ChangeKind.ERASE and row["state"] != Progress.BEGUN:
                erased[row["subject"]] = max(row["at"], erased.get(row["subject"], row["at"]))
        return erased

    def rows(self, change_id: str | None = None) -> list[dict[str, Any]]:
        """The rows of an order, or all."""
        table = self._open(USER_CHANGES)
        if table is None:
            return []
        wanted = None if change_id is None else pc.field("change_id") == change_id
        return table.to_pyarrow_dataset().to_table(filter=wanted).to_pylist()

    def put(self, rows: list[dict[str, Any]], gone: Sequence[str] = ()) -> None:
        """Write rows in the place of the orders' former ones, and forget orders. Blocks.

        Raises: OSError and DeltaError where the lake cannot be written.
        """
        new = pa.Table.from_pylist(rows, schema=USER_CHANGES_SCHEMA)
        named = {r["change_id"] for r in rows} | set(gone)
        if not named:
            return
        quoted = ", ".join(f"'{change_id}'" for change_id in sorted(named))
        predicate = f"change_id IN ({quoted})"
        for _ in range(_ATTEMPTS):
            table = self._open(USER_CHANGES)
            if table is None:
                path = self._root / USER_CHANGES
                path.mkdir(parents=True, exist_ok=True)
                DeltaTable.create(path, USER_CHANGES_SCHEMA, mode="ignore")
                continue
            try:
                write_deltalake(table, new, mode="overwrite", predicate=predicate)
            except CommitFailedError:
                continue
            return
        raise OSError(f"{self._root / USER_CHANGES}: others wrote {_ATTEMPTS} times in a row")

    def _of_the_key(self, rows: Sequence[Mapping[str, Any]]) -> Subjects:
        subjects = Subjects.of_lake(self._root)
        if any(row["key_id"] != subjects.key_id for row in rows):
            raise WrongKeyError(
                f"the tombstones of the lake {self._root} were made with another key; restore the"
                " lake's erasure.key from its backup"
            )
        return subjects
