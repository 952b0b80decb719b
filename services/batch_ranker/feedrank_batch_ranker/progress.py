"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0


@contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Call what it yields with the number of things just done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, total, done).tick
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


class _Lines:
    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._first = done
        self._began = self._last = time.monotonic()

    def tick(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._last < LINE_EVERY_S:
            return
        self._last = now
        rate = (self._done - self._first) / max(now - self._began, 1e-6)
        eta_s = (self._total - self._done) / max(rate, 1e-6)
        line = f"{self._what} {self._done}/{self._total} {rate:.0f}/s eta {eta_s:.0f}s"
        print(line, file=sys.stderr, flush=True)
