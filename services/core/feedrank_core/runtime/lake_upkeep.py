"""Upkeep of the lake: joins small files, forgets old days, removes what nothing refers to.

Appends and reads go on meanwhile. A reader that began before sees its files for KEEP_OLD_FILES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_errors import LakeError
from feedrank_core.runtime.lake_locks import LakeLocks
from feedrank_core.runtime.lake_schema import USER_CHANGES, USER_KEYS

EXPIRING = ("impressions", "interactions", "slates", "verdicts")
"""The tables that a retention applies to."""
KEEP_OLD_FILES = timedelta(hours=24)
"""What was replaced is removed after this long: the longest that a reader may stream."""
_ATTEMPTS = 10
_LOG = "_delta_log"


class Upkeep:
    """Of every table of one lake. Not for use from two threads at once."""

    def __init__(
        self, root: Path, opened: Callable[[str], DeltaTable | None], locks: LakeLocks
    ) -> None:
        self._root, self._open, self._locks = root, opened, locks

    def compact(self, first_kept: date | None) -> dict[str, int]:
        """Join small files, and forget events of days before; by table, how many were replaced.

        A table that fails costs the others nothing. Raises: LakeError at the end, naming each.
        """
        replaced: dict[str, int] = {}
        failed: list[str] = []
        for name in (*TOPICS, USER_KEYS, USER_CHANGES):
            try:
                with self._locks.compacting():
                    # Opened under the lock: what an erasure has purged must not be joined anew.
                    table = self._open(name)
                    if table is not None:
                        kept = first_kept if name in EXPIRING else None
                        replaced[name] = _compact(table, kept)
            except (OSError, DeltaError) as error:
                failed.append(f"{name}: {error}")
        if failed:
            raise LakeError(
                f"tables of the lake {self._root} cannot be compacted, the others are: "
                + "; ".join(failed)
            )
        return replaced

    def purge(self, names: Iterable[str], keep: timedelta) -> bool:
        """Remove what these tables hold no more; False, and nothing, while files are joined.

        Files that were replaced longer ago than `keep` (in whole hours), and those whose commit
        was lost. Appends wait meanwhile. Raises: DeltaError, OSError.
        """
        with self._locks.without_compaction() as alone:
            if not alone:
                return False
            with self._locks.without_appends():
                for name in names:
                    table = self._open(name)
                    if table is not None:
                        _vacuum(table, keep, whole_folder=False)
                        _remove_lost(table, self._root / name)
        return True


def _compact(table: DeltaTable, first_kept: date | None) -> int:
    if first_kept is not None:
        # Whole files: tables are partitioned by day.
        _committed(table, lambda: table.delete(f"date < '{first_kept.isoformat()}'"))
    done = _committed(table, table.optimize.compact)
    # What no reader of these hours can need. Also what a writer left behind without a commit; a
    # shorter time would take files from one that is about to commit.
    _vacuum(table, KEEP_OLD_FILES, whole_folder=True)
    return int(done["numFilesRemoved"])


def _committed(table: DeltaTable, change: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make a change, as of what an append or an erasure has committed meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return change()
        except CommitFailedError:
            table.update_incremental()
    return change()


def _vacuum(table: DeltaTable, keep: timedelta, *, whole_folder: bool) -> None:
    table.vacuum(
        retention_hours=int(keep.total_seconds() // 3600),
        enforce_retention_duration=False,
        dry_run=False,
        full=whole_folder,
    )


def _remove_lost(table: DeltaTable, folder: Path) -> None:
    """Remove the files that no version has: their writers lost the commit or died before it.

    Only while nobody writes. Not by a vacuum of the whole folder, which takes replaced files
    along and does not see one that a kill left half written.
    """
    replaced = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True)
    known = {Path(file).name for file in (*table.file_uris(), *replaced)}
    for file in folder.rglob("*"):
        is_log = file.relative_to(folder).parts[0] == _LOG
        if file.is_file() and not is_log and file.name not in known:
            file.unlink()
