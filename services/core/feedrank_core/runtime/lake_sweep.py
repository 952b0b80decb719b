"""Removes or re-keys the rows of readers in the lake's tables, file by file of each day.

Delta refuses a deletion while another writer adds files that it might concern. So each day is a
commit of its own: only today's has to try again while the sink appends.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import has_user

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
    """Rows up to `at` that were there."""

    @property
    def keyed(self) -> str:
        """The condition on a row's key."""
        return f"user_key IN ({', '.join(map(str, self.user_keys))})"


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
        for day, rows in _by_day(table, held).items():
            _sweep_day(lambda name=name: _opened(open_table, name), day, rows, held)


def keys_with_rows(
    open_table: Callable[[str], DeltaTable | None], keys: Sequence[int], *, until: datetime
) -> set[int]:
    """Which of the keys have a row accepted by `until`."""
    found: set[int] = set()
    wanted = pc.field("user_key").isin(list(keys)) & (pc.field("accepted_at") <= until)
    for name in USER_TABLES if keys else ():
        table = open_table(name)
        if table is not None:
            rows = table.to_pyarrow_dataset().to_table(columns=["user_key"], filter=wanted)
            found |= set(pc.unique(rows["user_key"]).to_pylist())
    return found


def _opened(open_table: Callable[[str], DeltaTable | None], name: str) -> DeltaTable:
    table = open_table(name)
    assert table is not None, name
    return table


def _by_day(table: DeltaTable, holdings: Sequence[Holding]) -> dict[date, pa.Table]:
    """The rows of these keys: user_key and accepted_at, by day."""
    keys = [key for h in holdings for key in h.user_keys]
    wanted = pc.field("user_key").isin(keys)
    if not any(h.remove for h in holdings):
        # A merge moves keys, not rows: only what came after it is looked for.
        wanted = wanted & (pc.field("date") >= min(h.at for h in holdings).date())
    columns = ["date", "user_key", "accepted_at"]
    rows = table.to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
    days = pc.unique(rows["date"]).to_pylist()
    return {day: rows.filter(pc.equal(rows["date"], day)) for day in sorted(days)}


def _sweep_day(
    opened: Callable[[], DeltaTable], day: date, rows: pa.Table, holdings: Sequence[Holding]
) -> None:
    on_day = f"date = DATE '{day.isoformat()}'"
    gone: list[str] = []
    for holding in holdings:
        mine = rows.filter(pc.is_in(rows["user_key"], pa.array(holding.user_keys, pa.int64())))
        old = pc.sum(pc.less_equal(mine["accepted_at"], holding.at)).as_py() or 0
        if old and holding.remove:
            holding.found += old
            gone.append(f"({holding.keyed} AND accepted_at <= {_instant(holding.at)})")
        if old < mine.num_rows:
            later = f"{on_day} AND {holding.keyed} AND accepted_at > {_instant(holding.at)}"
            key = holding.new_key()
            _commit(
                lambda later=later, key=key: opened().update(
                    {"user_key": str(key)}, predicate=later
                )
            )
    if gone:
        _commit(lambda: opened().delete(f"{on_day} AND ({' OR '.join(gone)})"))


def _instant(at: datetime) -> str:
    # A literal TIMESTAMP counts nanoseconds without a zone, which compares with nothing here.
    return f"arrow_cast('{at.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def _commit(change: Callable[[], object]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            change()
            return
        except CommitFailedError:
            if attempt == _ATTEMPTS - 1:
                raise
