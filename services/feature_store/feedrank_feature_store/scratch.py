"""A folder for what a run puts aside, and the right to be the one run that writes the tables."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BusyError(RuntimeError):
    """Another run writes the feature tables of this installation."""


@contextmanager
def scratch_folder(features: Path) -> Iterator[Path]:
    """An empty folder beside the tables, for one run at a time; what it held is removed.

    A run that was killed leaves its scratch to the next one. Raises: BusyError, OSError.
    """
    features.mkdir(parents=True, exist_ok=True)
    scratch = features / ".scratch"
    with (features / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{features}: another run writes there; wait for its end") from error
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
