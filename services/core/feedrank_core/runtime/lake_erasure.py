"""Applies erasures and merges to the lake, so that a crash at any step is made good by a repeat.

    begun     the tombstone stands: no writer takes in what was accepted before it
    applied   the reader's keys are gone (or the other's); no view shows the rows, most are deleted
    settled   every writer has passed the tombstone, and a second sweep found what they had in hand
    done      the files that held the rows are removed, those of lost commits too

Between `apply` and `settle` the caller waits until the sink is past everything that was on the
bus when `apply` returned. `settle` waits for appends under way, an import's say: who looked for
tombstones before this one stood has its rows in the lake by then, and whoever looks later finds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from deltalake.exceptions import DeltaError

from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_changes import Progress
from feedrank_core.runtime.lake_errors import LakeError
from feedrank_core.runtime.lake_keys import Rows
from feedrank_core.runtime.lake_schema import USER_CHANGES, USER_KEYS
from feedrank_core.runtime.lake_sweep import USER_TABLES, Holding, first_rows, sweep
from feedrank_core.runtime.subjects import Subjects

Row = dict[str, Any]
_TABLES = (*USER_TABLES, USER_KEYS, USER_CHANGES)


class LakeEraser:
    """One at a time a lake. Every step may be repeated; each raises LakeError."""

    def __init__(self, lake: Lake, *, grace: timedelta) -> None:
        self._lake = lake
        self._book, self._keys = lake.changes, lake.keys
        self.subjects = Subjects.of_lake(lake.root)
        self._grace = grace

    def take_key(self) -> None:
        """Go on with the lake's key as it is now. Raises: WrongKeyError, where it was lost."""
        with self._translated():
            self.subjects = self._book.subjects()

    def apply(self, changes: Sequence[UserChange]) -> None:
        """Refuse what comes from before each order, and hide what is there. In their order."""
        with self._translated():
            for change in changes:
                row = self._row_of(change)
                if row["state"] == Progress.BEGUN:
                    row["removed"] += self._carry_out(change, row["user_keys"])
                    row["state"] = Progress.APPLIED
                    # Its commit also tells every sink to read the keys anew.
                    self._book.put([row])

    def settle(self, changes: Sequence[UserChange], now: datetime) -> dict[str, Row]:
        """Sweep once more, after every writer has passed the orders; their rows by change id."""
        with self._translated():
            rows = {c.change_id: self._row_of(c) for c in changes}
            applied = [c for c in changes if rows[c.change_id]["state"] == Progress.APPLIED]
            self._lake.locks.wait_for_appends()
            held = [self._holding(c, rows[c.change_id]["user_keys"]) for c in applied]
            sweep(self._lake.table, held)
            for change, holding in zip(applied, held, strict=True):
                row = rows[change.change_id]
                row["removed"] += holding.found
                self._carry_out_on_strays(change, row)
                row["state"], row["user_keys"] = Progress.DONE, []
                if change.kind is ChangeKind.ERASE:
                    row["state"], row["purge_at"] = Progress.SETTLED, now + self._grace
            erased = [r for r in rows.values() if r["kind"] == ChangeKind.ERASE]
            self._book.put(erased, gone=[c for c in rows if rows[c] not in erased])
            return rows

    def purge(self, now: datetime) -> list[Row]:
        """Remove the files of settled erasures whose grace is over; the rows that are done now.

        None of them while the lake is compacted: what is being joined may hold their rows.
        """
        with self._translated():
            settled = [r for r in self._book.rows() if r["state"] == Progress.SETTLED]
            due = [r for r in settled if r["purge_at"] <= now]
            if not due or not self._lake.upkeep.purge(_TABLES, self._grace):
                return []
            for row in due:
                row["state"] = Progress.DONE
            self._book.put(due)
            return due

    def _row_of(self, change: UserChange) -> Row:
        """The order's row in the book, begun if it was not."""
        known = self._book.rows(change.change_id)
        if known:
            return known[0]
        # Keys given after the order are those of somebody who came back.
        keys = self._keys.keys_of(change.user_id, before=change.accepted_at)
        if change.kind is ChangeKind.MERGE and not keys:
            # What still comes from before the order must find a key that went to the other.
            keys = self._keys.first_key_of(change.user_id)
        row = self._new_row(change.change_id, change.kind, change.user_id, change.accepted_at)
        row |= {"state": Progress.BEGUN, "user_keys": keys}
        former = self._former_readers(change, keys) if change.kind is ChangeKind.ERASE else []
        self._book.put([row, *former])
        return row

    def _former_readers(self, change: UserChange, keys: list[int]) -> list[Row]:
        """Tombstones of those who were merged into an erased reader, up to their merge."""
        rows: list[Row] = []
        for number, (user_id, until) in enumerate(self._keys.former_owners(keys)):
            change_id = f"{change.change_id}-{number}"
            row = self._new_row(change_id, ChangeKind.ERASE, user_id, until)
            rows.append(row | {"state": Progress.DONE, "user_keys": []})
        return rows

    def _new_row(self, change_id: str, kind: ChangeKind, user_id: str, at: datetime) -> Row:
        return {
            "change_id": change_id,
            "kind": kind.value,
            "subject": self.subjects.of(user_id),
            "key_id": self.subjects.key_id,
            "at": at,
            "removed": 0,
            "purge_at": None,
        }

    def _carry_out(self, change: UserChange, keys: list[int]) -> int:
        """Drop or move these keys, and sweep their rows; how many rows it concerned."""
        if change.kind is ChangeKind.MERGE:
            self._keys.rewrite(keys, partial(_moved, change=change))
        else:
            self._keys.rewrite(keys, lambda rows: [])
            past = self._keys.rows_naming(change.user_id)
            self._keys.rewrite({r["user_key"] for r in past}, partial(_unnamed, change=change))
        holding = self._holding(change, keys)
        sweep(self._lake.table, [holding])
        return holding.found

    def _carry_out_on_strays(self, change: UserChange, row: Row) -> None:
        if not self._strays(change):
            return
        # Looked for anew: a key that an append gives just now has no row before its commit.
        with self._lake.locks.without_appends():
            row["removed"] += self._carry_out(change, self._strays(change))
            # Its commit tells every writer to read the keys anew.
            self._book.put([row])

    def _holding(self, change: UserChange, keys: list[int]) -> Holding:
        at, is_erasure = change.accepted_at, change.kind is ChangeKind.ERASE
        return Holding(keys, at, is_erasure, partial(self._keys.assign, change.user_id, at))

    def _strays(self, change: UserChange) -> list[int]:
        """Keys that a writer gave, for older rows, while it did not know of the order yet.

        Also for rows that it then left out, when it began anew and found the order.
        """
        keys = self._keys.keys_of(change.user_id, before=change.accepted_at)
        first = first_rows(self._lake.table, keys)
        return [k for k in keys if first.get(k, change.accepted_at) <= change.accepted_at]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as error:
            raise LakeError(
                f"the lake {self._lake.root} cannot be written, the order is tried again: {error};"
                " free space or mend the folder's permissions"
            ) from error


def _moved(rows: Rows, *, change: UserChange) -> Rows:
    """The rows of a key that is another reader's from the order on."""
    moved: Rows = []
    for row in rows:
        if row["user_id"] == change.user_id and row["until"] is None:
            moved.append(row | {"user_id": change.into, "since": change.accepted_at})
            row["until"] = change.accepted_at
        moved.append(row)
    return moved


def _unnamed(rows: Rows, *, change: UserChange) -> Rows:
    """The rows of keys that went to others, without the erased reader's name."""

    def is_theirs(row: Row) -> bool:
        ended = row["until"] is not None and row["until"] <= change.accepted_at
        return row["user_id"] == change.user_id and ended

    return [row for row in rows if not is_theirs(row)]
