"""Upkeep of one Delta table: joins small files, forgets old days, removes what nothing refers to.

Appends and reads go on meanwhile. A reader that began before sees its files for KEEP_OLD_FILES.
"""

from __future__ import annotations

from datetime import date, timedelta

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

KEEP_OLD_FILES = timedelta(hours=24)
"""What was replaced is removed after this long: the longest that a reader may stream."""
_ATTEMPTS = 10


def join_small_files(table: DeltaTable) -> int:
    """Join them; how many were replaced. Raises: DeltaError, OSError."""
    return int(table.optimize.compact()["numFilesRemoved"])


def forget_before(table: DeltaTable, first_kept: date) -> int:
    """Forget the rows of days before; how many files went. Raises: DeltaError, OSError.

    Whole files: tables are partitioned by day. A retry reads what an append has added meanwhile.
    """
    for attempt in range(_ATTEMPTS):
        try:
            done = table.delete(f"date < '{first_kept.isoformat()}'")
            return int(done["num_removed_files"])
        except CommitFailedError:
            if attempt == _ATTEMPTS - 1:
                raise
            table.update_incremental()
    raise AssertionError


def remove_replaced(table: DeltaTable, keep: timedelta) -> None:
    """Remove files that were replaced longer ago than `keep`, in whole hours.

    Raises: DeltaError, OSError.
    """
    _vacuum(table, keep, whole_folder=False)


def remove_unreferenced(table: DeltaTable) -> None:
    """Remove what no reader of the last KEEP_OLD_FILES can need.

    Also what a killed writer left behind without a commit; never with a shorter time, which
    would take files from a writer that is about to commit. Raises: DeltaError, OSError.
    """
    _vacuum(table, KEEP_OLD_FILES, whole_folder=True)


def _vacuum(table: DeltaTable, keep: timedelta, *, whole_folder: bool) -> None:
    table.vacuum(
        retention_hours=int(keep.total_seconds() // 3600),
        enforce_retention_duration=False,
        dry_run=False,
        full=whole_folder,
    )
