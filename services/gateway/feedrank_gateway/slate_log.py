"""SideEffect: slates wait in memory for the bus; no answer ever waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

import structlog
from feedrank_core.runtime.bus import BusUnavailableError

from feedrank_gateway.page import Page
from feedrank_gateway.ports import SlatePublisher, SlatesRefusedError

BATCH = 256
"""Slates a publish call at most: half a megabyte."""
GATHER_S = 0.1
"""Waiting this long for company: a call costs relay and bus more than its slates do. A worker that
is killed loses at most what waits here."""
RETRY_S = 0.25
FLUSH_S = 5.0

log = structlog.get_logger(__name__)


class SlateLog:
    """A bounded queue before the bus. What does not fit is dropped and counted.

    A slate leaves the queue when the bus holds it. For use from one event loop.
    """

    def __init__(
        self,
        publisher: SlatePublisher,
        *,
        capacity: int,
        on_published: Callable[[int], None] = lambda num: None,
        on_dropped: Callable[[int], None] = lambda num: None,
    ) -> None:
        self._publisher, self._capacity = publisher, capacity
        self._on_published, self._on_dropped = on_published, on_dropped
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Publish from now on, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __call__(self, page: Page) -> None:
        """Take the page's slate and return at once."""
        if len(self._waiting) >= self._capacity:
            self._on_dropped(1)
            return
        self._waiting.append((page.user_id, page.slate()))
        self._arrived.set()

    async def close(self, *, flush_s: float = FLUSH_S) -> None:
        """Publish what waits, for at most `flush_s`; count what is left as dropped."""
        self._is_closing = True
        self._arrived.set()
        if self._task is not None:
            _, unfinished = await asyncio.wait([self._task], timeout=flush_s)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            self._on_dropped(len(self._waiting))
            log.warning("slates_dropped", num=len(self._waiting))
            self._waiting.clear()
        await self._publisher.close()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._is_closing:
                await asyncio.sleep(GATHER_S)
            while self._waiting:
                await self._publish(list(islice(self._waiting, BATCH)))
            if self._is_closing:
                return
            self._arrived.clear()

    async def _publish(self, batch: list[tuple[str, bytes]]) -> None:
        try:
            await self._publisher.publish(batch)
        except BusUnavailableError as error:
            log.warning("bus_unavailable", reason=str(error), waiting=len(self._waiting))
            await asyncio.sleep(RETRY_S)
            return
        except SlatesRefusedError:
            # For good, so the next ones must not wait behind these; the relay has logged why.
            self._on_dropped(len(batch))
        except Exception:
            log.exception("slates_lost", num=len(batch))
            self._on_dropped(len(batch))
        else:
            self._on_published(len(batch))
        for _ in batch:
            self._waiting.popleft()
