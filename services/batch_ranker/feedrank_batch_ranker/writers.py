"""Who writes candidates just now, and who was killed before they had forgotten the erased.

A writer's mark is a file of its own beside the users table, locked while the writer lives. The
system takes the lock from a killed one, and its mark says that somebody must look after it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MARK = ".writing-"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Held from the first candidate written until who was erased meanwhile is forgotten.

    What ends otherwise leaves its mark behind.
    """
    name = secrets.token_hex(4)
    # Locked before it has a name that others look for: theirs is every mark without a lock.
    unseen, mark = folder / f".unseen-{name}", folder / f"{_MARK}{name}"
    descriptor = os.open(unseen, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unseen.replace(mark)
        yield
        mark.unlink()
    finally:
        os.close(descriptor)


def abandoned(folder: Path) -> list[Path]:
    """The marks of writers that were killed or failed."""
    return [mark for mark in folder.glob(f"{_MARK}*") if _is_unlocked(mark)]


def _is_unlocked(mark: Path) -> bool:
    # Whoever has ended well since has taken their mark away, or still holds it.
    with suppress(FileNotFoundError, BlockingIOError), mark.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False
