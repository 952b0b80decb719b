"""Who is at work in the lake just now, by locks that the system takes from a killed process.

Delta's commits need none of them. An erasure does: it must know that nobody is left who looked
for tombstones before its own stood, and that a file without a commit will never get one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DOOR, _ROOM, _COMPACTION = ".appends.door.lock", ".appends.lock", ".compaction.lock"
_PATIENCE_S = 60.0
"""Who waits for an append longer than this is told that it hangs, and asks again."""
_POLL_S = 0.005


class LakeLocks:
    """The locks of one lake's folder, for threads and processes alike."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Held from the look at the tombstones to the commit, beside other appends. Blocks."""
        with self._file(_ROOM) as room:
            # Whoever waits for the room to be empty keeps the door: appends that overlap one
            # another without end would never let it be.
            with self._file(_DOOR) as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(room, fcntl.LOCK_SH)
            yield

    @contextmanager
    def without_appends(self) -> Iterator[None]:
        """Begins when every append under way has ended, and keeps further ones waiting. Blocks.

        Raises: TimeoutError where an append does not end.
        """
        with self._file(_DOOR) as door, self._file(_ROOM) as room:
            _lock_in_time(door)
            _lock_in_time(room)
            yield

    def wait_for_appends(self) -> None:
        """Every append that was under way has ended, or its process. Raises: TimeoutError."""
        with self.without_appends():
            pass

    @contextmanager
    def compacting(self) -> Iterator[None]:
        """Held while files are joined; one at a time. Blocks."""
        with self._file(_COMPACTION) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def without_compaction(self) -> Iterator[bool]:
        """Whether nobody joins files, and until the end nobody does. A compaction takes minutes."""
        with self._file(_COMPACTION) as lock:
            yield _is_locked(lock)

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / name, os.O_RDWR | os.O_CREAT)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_in_time(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _is_locked(descriptor):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"an append to the lake has not ended for {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)
