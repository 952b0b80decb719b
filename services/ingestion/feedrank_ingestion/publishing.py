"""Holds what requests bring on the bus: one thread, one publish for all that wait.

Requests that arrive while a publish is under way share the next one, so that the cost of a
round trip to the bus is paid once a group and not once a request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Outgoing, Publisher

Batch = Mapping[str, Sequence[Outgoing]]
Waiting = tuple[Batch, Future[None]]

MAX_GROUP = 5_000
"""Records of one group: some 2 MB, which a bus takes within a few tens of milliseconds."""


class GroupPublisher:
    """Publishes from a thread of its own. `hold` returns once the bus holds all of a batch.

    How much may wait is the caller's to bound. Where the bus is away, whatever waits is told at
    once: each would only wait for the same timeout again.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="publisher", daemon=True)
        self._publisher: Publisher | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what waits, then end. Blocks."""
        self._waiting.put(None)
        self._thread.join()

    async def hold(self, batch: Batch) -> None:
        """Return when the bus holds the batch. Raises: BusUnavailableError."""
        if not batch:
            return
        done: Future[None] = Future()
        self._waiting.put((batch, done))
        await asyncio.wrap_future(done)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            ended = self._gather(group)
            try:
                self._publish([batch for batch, _ in group])
                error = None
            except Exception as failure:
                error = failure
                self._drop_publisher()
                if isinstance(failure, BusUnavailableError):
                    ended = self._gather(group, all_of_them=True) or ended
            for _, done in group:
                if done.set_running_or_notify_cancel():
                    done.set_exception(error) if error else done.set_result(None)
            if ended:
                break
        self._drop_publisher()

    def _gather(self, group: list[Waiting], *, all_of_them: bool = False) -> bool:
        """Add what waits by now; True where the last word was to stop."""
        num_records = 0
        while all_of_them or num_records < MAX_GROUP:
            try:
                one = self._waiting.get_nowait()
            except Empty:
                return False
            if one is None:
                return True
            group.append(one)
            num_records += sum(len(records) for records in one[0].values())
        return False

    def _publish(self, batches: Sequence[Batch]) -> None:
        merged: dict[str, list[Outgoing]] = {}
        for batch in batches:
            for topic, records in batch.items():
                merged.setdefault(topic, []).extend(records)
        if self._publisher is None:
            self._publisher = self._bus.publisher()
        for topic, records in merged.items():
            self._publisher.publish(TOPICS[topic], records)

    def _drop_publisher(self) -> None:
        if self._publisher is not None:
            with contextlib.suppress(Exception):
                self._publisher.close()
            self._publisher = None
