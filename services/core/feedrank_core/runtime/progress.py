"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0


class Tick(Protocol):
    """Told how many things were just done, and what else is worth reading; by any thread."""

    def __call__(self, count: int, note: str = "", /) -> None:
        """Show it, now or with what comes next."""
        ...


@contextmanager
def progress(what: str, total: int | None, *, done: int = 0) -> Iterator[Tick]:
    """A Tick to call as things get done; `total` is None where nobody knows it beforehand."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(what, total, done)
        yield lines.tick
        lines.end()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rest = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, *rest, console=console) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")
        yield lambda count, note="": bar.update(task, advance=count, note=note)


class _Lines:
    def __init__(self, what: str, total: int | None, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._first = done
        self._began = self._last = time.monotonic()
        self._note, self._told = "", done
        self._lock = threading.Lock()

    def tick(self, count: int, note: str = "", /) -> None:
        with self._lock:
            self._done += count
            self._note = note
            now = time.monotonic()
            if self._done == self._total or now - self._last >= LINE_EVERY_S:
                self._last = now
                self._tell(now)

    def end(self) -> None:
        """The last line, where the end could not be foreseen."""
        if self._told != self._done:
            self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        self._told = self._done
        rate = (self._done - self._first) / max(now - self._began, 1e-6)
        of, eta = "", ""
        if self._total is not None:
            of = f"/{self._total}"
            eta = f" eta {(self._total - self._done) / max(rate, 1e-6):.0f}s"
        line = f"{self._what} {self._done}{of} {rate:.{0 if rate >= 10 else 2}f}/s{eta}"
        print(f"{line} {self._note}".rstrip(), file=sys.stderr, flush=True)
