"""Removes or re-keys the rows of readers in the lake's tables, file by file of each day.

Delta refuses a change while another writer adds files that it might concern. So each day is a
commit of its own: only today's has to try again while the sink appends.

A change is an overwrite of what a condition selects. Delta's own DELETE and UPDATE (deltalake
1.6.6) write strings as `string_view`, on which filters of Arrow's readers fail or find nothing.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import TIMESTAMP, has_user

USER_TABLES = tuple(t.name for t in TOPICS.values() if t.in_lake and has_user(t.name))
_ATTEMPTS = 100
"""Today's files change with every batch of the sink: some tries in a second lose."""


@dataclass
class Holding:
    """Keys, and the instant up to which their rows are the old reader's. `found` is filled."""

    user_keys: list[int]
    at: datetime
    remove: bool
    new_key: Callable[[], int]
    """Gives the key of what the reader did after `at`."""
    found: int = field(default=0)
    """Rows up to `at` that were removed."""

    def of(self, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Those of the rows that are of these keys: up to `at`, and after it."""
        mine = rows.filter(pc.is_in(rows["user_key"], pa.array(self.user_keys, pa.int64())))
        old = pc.less_equal(mine["accepted_at"], pa.scalar(self.at, TIMESTAMP))
        return mine.filter(old), mine.filter(pc.invert(old))


def sweep(open_table: Callable[[str], DeltaTable | None], holdings: Sequence[Holding]) -> None:
    """Remove each holding's rows up to its instant, and give those after it another key.

    Raises: OSError and DeltaError where the lake cannot be written.
    """
    held = [h for h in holdings if h.user_keys]
    if not held:
        return
    for name in USER_TABLES:
        table = open_table(name)
        if table is None:
            continue
        for day in _days(table, held):
            _sweep_day(partial(open_table, name), day, held)


def first_rows(
    open_table: Callable[[str], DeltaTable | None], keys: Sequence[int]
) -> dict[int, datetime]:
    """By key, when its first row was accepted; keys without any row are not among them."""
    wanted = pc.field("user_key").isin(list(keys))
    columns = ["user_key", "accepted_at"]
    held = [
        table.to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
        for table in map(open_table, USER_TABLES if keys else ())
        if table is not None
    ]
    if not held:
        return {}
    found = pa.concat_tables(held).group_by("user_key").aggregate([("accepted_at", "min")])
    return dict(
        zip(found["user_key"].to_pylist(), found["accepted_at_min"].to_pylist(), strict=True)
    )


def _days(table: DeltaTable, holdings: Sequence[Holding]) -> list[date]:
    """The days on which there are rows to change."""
    wanted = pc.field("user_key").isin([key for h in holdings for key in h.user_keys])
    if not any(h.remove for h in holdings):
        # A merge moves keys, not rows: only what came after it is looked for.
        wanted = wanted & (pc.field("date") >= min(h.at for h in holdings).date())
    columns = ["date", "user_key", "accepted_at"]
    rows = table.to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
    found: set[date] = set()
    for holding in holdings:
        old, later = holding.of(rows)
        found |= set(pc.unique(later["date"]).to_pylist())
        found |= set(pc.unique(old["date"]).to_pylist()) if holding.remove else set()
    return sorted(found)


def _sweep_day(
    opened: Callable[[], DeltaTable | None], day: date, holdings: Sequence[Holding]
) -> None:
    """One commit: rows of removed readers gone, later rows under their new keys."""
    for _ in range(_ATTEMPTS):
        table = opened()
        assert table is not None
        change = _change(table, day, holdings)
        if not change.conditions:
            return
        predicate = f"date = DATE '{day.isoformat()}' AND ({' OR '.join(change.conditions)})"
        try:
            write_deltalake(table, change.rows, mode="overwrite", predicate=predicate)
        except CommitFailedError:
            continue
        for holding, num_rows in zip(holdings, change.removed, strict=True):
            holding.found += num_rows
        return
    raise OSError(f"other writers committed {_ATTEMPTS} times in a row")


@dataclass
class _Change:
    """What is overwritten, by what, and how many rows of each holding that removes."""

    conditions: list[str]
    rows: pa.Table
    removed: list[int]


def _change(table: DeltaTable, day: date, holdings: Sequence[Holding]) -> _Change:
    held = _rows(table, day, [key for h in holdings for key in h.user_keys])
    change = _Change([], held.slice(0, 0), [0] * len(holdings))
    for n, holding in enumerate(holdings):
        keyed, at = _keyed(holding.user_keys), _at(holding)
        old, later = holding.of(held)
        if old.num_rows and holding.remove:
            change.removed[n] = old.num_rows
            change.conditions.append(f"({keyed} AND accepted_at <= {at})")
        if later.num_rows:
            key = holding.new_key()
            # With what already has the key: whatever is written must fit the condition.
            kept = [_with_key(later, key), _rows(table, day, [key])]
            change.rows = pa.concat_tables([change.rows, *kept])
            change.conditions += [f"({keyed} AND accepted_at > {at})", _keyed([key])]
    return change


def _rows(table: DeltaTable, day: date, keys: Sequence[int]) -> pa.Table:
    wanted = (pc.field("date") == day) & pc.field("user_key").isin(list(keys))
    return table.to_pyarrow_dataset().to_table(filter=wanted)


def _with_key(rows: pa.Table, key: int) -> pa.Table:
    index = rows.schema.get_field_index("user_key")
    keys = pa.repeat(pa.scalar(key, pa.int64()), rows.num_rows)
    return rows.set_column(index, rows.schema.field(index), keys)


def _keyed(keys: Sequence[int]) -> str:
    return f"user_key IN ({', '.join(map(str, keys))})"


def _at(holding: Holding) -> str:
    # A literal TIMESTAMP counts nanoseconds without a zone, which compares with nothing here.
    text = holding.at.isoformat()
    return f"arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
