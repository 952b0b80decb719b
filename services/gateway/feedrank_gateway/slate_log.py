"""SideEffect: slates go to the bus from a thread; no answer ever waits for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import structlog
from feedrank_core.contracts.topics import SLATES
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing, Publisher

from feedrank_gateway.page import Page

BATCH = 64
"""Slates a publish call: some 150 KB, at most a millisecond of this process's time."""
GATHER_S = 0.005
"""Waiting this long for company. 50 ms cost less in all and more at p99: what a publish call then
takes, requests notice (2.63 against 2.36 times the floor of `bench cached_feed`)."""
RETRY_S = 0.25
FLUSH_S = 5.0

log = structlog.get_logger(__name__)


class SlateLog:
    """A bounded queue in memory before the bus. What does not fit is dropped and counted."""

    def __init__(
        self,
        connect: Callable[[], Publisher],
        *,
        capacity: int,
        on_published: Callable[[int], None] = lambda num: None,
        on_dropped: Callable[[int], None] = lambda num: None,
    ) -> None:
        self._connect = connect
        self._publisher: Publisher | None = None
        self._queue: queue.Queue[Page] = queue.Queue(maxsize=capacity)
        self._on_published, self._on_dropped = on_published, on_dropped
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="slate-log", daemon=True)

    def start(self) -> None:
        """Publish from now on."""
        self._thread.start()

    def __call__(self, page: Page) -> None:
        """Take the page's slate and return at once."""
        try:
            self._queue.put_nowait(page)
        except queue.Full:
            self._on_dropped(1)

    def close(self, *, flush_s: float = FLUSH_S) -> None:
        """Publish what waits, for at most `flush_s`; count what is left as dropped. Blocks."""
        self._deadline = time.monotonic() + flush_s
        if self._thread.is_alive():
            self._thread.join(timeout=flush_s + 2.0)
        left = self._queue.qsize()
        if left:
            self._on_dropped(left)
            log.warning("slates_dropped", num=left)
        if self._publisher is not None:
            self._publisher.close()

    def _run(self) -> None:
        while True:
            pages = self._take()
            if pages:
                self._publish([Outgoing(page.user_id, page.slate()) for page in pages])
            elif self._deadline is not None:
                return
            if self._deadline is not None and time.monotonic() > self._deadline:
                return

    def _take(self) -> list[Page]:
        try:
            pages = [self._queue.get(timeout=0.1)]
        except queue.Empty:
            return []
        if self._deadline is None:
            time.sleep(GATHER_S)
        while len(pages) < BATCH:
            try:
                pages.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return pages

    def _publish(self, records: list[Outgoing]) -> None:
        while True:
            try:
                if self._publisher is None:
                    self._publisher = self._connect()
                self._publisher.publish(SLATES, records)
            except BusUnavailableError as error:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._on_dropped(len(records))
                    return
                log.warning("bus_unavailable", reason=str(error), waiting=self._queue.qsize())
                time.sleep(RETRY_S)
            except Exception:
                log.exception("slates_refused", num=len(records))
                self._on_dropped(len(records))
                return
            else:
                self._on_published(len(records))
                return
