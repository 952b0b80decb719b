"""How much memory a process and all below it take at most."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

LOOK_EVERY_S = 0.25


@dataclass
class Peak:
    """The most that was seen so far."""

    bytes: int = 0

    @property
    def gb(self) -> float:
        """In units of 1e9 bytes."""
        return self.bytes / 1e9


def family_bytes(root: psutil.Process) -> int:
    """Memory of a process and all below it, pages that several share counted once.

    Where the system does not tell (only Linux does), shared pages count for each.
    """
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in family:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(memory, "pss", memory.rss)
    return total


@contextmanager
def watching_peak(root: psutil.Process | None = None) -> Iterator[Peak]:
    """The peak of this process (or `root`) and all below it while the block runs."""
    watched, peak, done = root or psutil.Process(), Peak(), threading.Event()

    def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, family_bytes(watched))
            if done.wait(LOOK_EVERY_S):
                return

    watcher = threading.Thread(target=look, name="peak-memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
