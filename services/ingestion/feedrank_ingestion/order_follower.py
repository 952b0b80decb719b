"""Carries erasures and merges out on what ingestion owns: the lake, and the bus's own records.

Orders are applied as they come, in their one sequence. An order is settled once the sink has
passed everything that was on the bus when it was applied; until then it is not committed, so a
crash at any point repeats it.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

import structlog
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import (
    LAKE_GROUP,
    ChangeReport,
    Store,
    StoreState,
    UserChange,
)
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Consumer, LeaseLostError, Record
from feedrank_core.runtime.change_reports import Reporter, report_on
from feedrank_core.runtime.dead_letters import reason_of
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.lake_changes import Progress
from feedrank_core.runtime.lake_erasure import LakeEraser, Row
from feedrank_core.runtime.metrics import Metrics
from pydantic import ValidationError

from feedrank_ingestion.bus_eraser import BusEraser
from feedrank_ingestion.lake_sink import SINK_TOPICS, missing

MAX_ORDERS = 500
POLL_S = 0.25
PAUSE_S = 1.0
PURGE_EVERY_S = 30.0

log = structlog.get_logger(__name__)


@dataclass
class Applied:
    """Orders of one poll, and what the sink must reach before they are settled."""

    records: list[Record]
    orders: list[tuple[Record, UserChange]]
    ends: dict[str, dict[int, int]]

    @property
    def changes(self) -> list[UserChange]:
        """What is to be done."""
        return [change for _, change in self.orders]


class OrderFollower:
    """One member of the group of the orders' readers. `run` returns once `stop` was called."""

    def __init__(
        self,
        *,
        bus: Bus,
        lake: Lake,
        eraser: LakeEraser,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus, self._lake, self._eraser = bus, lake, eraser
        self._metrics, self._clock = metrics, clock
        self._stop = Event()
        self._waiting: deque[Applied] = deque()
        self._next_purge = 0.0
        self.trouble: str | None = None

    def stop(self) -> None:
        """End after the step in hand. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Follow until stopped; what fails is tried again. Blocks."""
        member = f"{socket.gethostname()}-{os.getpid()}"
        while not self._stop.is_set():
            self._waiting.clear()
            try:
                self._bus.create_topics()
                reporter = Reporter(self._bus)
                with (
                    reporter,
                    self._bus.consumer([USER_CHANGES], group=LAKE_GROUP, member=member) as consumer,
                ):
                    # Tombstones of two keys in one lake would be right under neither.
                    self._eraser.take_key()
                    forgetting = BusEraser(
                        self._bus, reporter, self._eraser.subjects, clock=self._clock
                    )
                    forgetting.resume()
                    while not self._stop.is_set():
                        self.step(consumer, reporter, forgetting)
                        self.trouble = None
            except (BusUnavailableError, LeaseLostError, LakeError) as error:
                self.trouble = f"{type(error).__name__}: {error}"
                log.warning("orders_waiting", reason=str(error))
                self._stop.wait(PAUSE_S)

    def step(self, consumer: Consumer, reporter: Reporter, forgetting: BusEraser) -> None:
        """Apply what came, settle what may be, and let go of what is due.

        Raises: BusUnavailableError, LeaseLostError, LakeError; the orders then come again.
        """
        records = consumer.poll(max_records=MAX_ORDERS, timeout_s=POLL_S)
        if records:
            self._apply(consumer, records)
        while self._waiting and self._is_passed(self._waiting[0]):
            self._settle(consumer, reporter, forgetting, self._waiting.popleft())
        if time.monotonic() >= self._next_purge:
            self._purge(reporter)
        forgetting.step()
        self._metrics.gauge("user_changes_waiting").set(sum(len(w.orders) for w in self._waiting))

    def _apply(self, consumer: Consumer, records: Sequence[Record]) -> None:
        orders: list[tuple[Record, UserChange]] = []
        for record in records:
            try:
                change = UserChange.model_validate_json(record.value or b"")
            except ValidationError as error:
                consumer.dead_letter(record, reason_of(error))
            else:
                orders.append((record, change))
        self._eraser.apply([change for _, change in orders])
        ends = {topic.name: self._bus.end_offsets(topic) for topic in SINK_TOPICS}
        self._waiting.append(Applied(list(records), orders, ends))

    def _is_passed(self, applied: Applied) -> bool:
        """Whether the sink has kept all that was on the bus when the orders were applied."""
        return not any(missing(self._lake, t, applied.ends[t.name]) for t in SINK_TOPICS)

    def _settle(
        self, consumer: Consumer, reporter: Reporter, forgetting: BusEraser, applied: Applied
    ) -> None:
        rows = self._eraser.settle(applied.changes, self._clock())
        done = {row["change_id"] for row in self._eraser.purge(self._clock())}
        reporter.publish([self._lake_report(c, rows[c.change_id], done) for c in applied.changes])
        for record, change in applied.orders:
            forgetting.add(record, change)
            self._metrics.counter("user_changes_total").labels(change.kind.value).inc()
        consumer.commit(applied.records)
        log.info("user_changes_settled", num=len(applied.orders))

    def _lake_report(self, change: UserChange, row: Row, done: set[str]) -> ChangeReport:
        is_done = (
            row["purge_at"] is None or change.change_id in done or row["state"] == Progress.DONE
        )
        return report_on(
            change,
            row["subject"],
            Store.LAKE,
            StoreState.DONE if is_done else StoreState.EXPIRES,
            now=self._clock(),
            expires_at=None if is_done else row["purge_at"],
            removed=row["removed"],
        )

    def _purge(self, reporter: Reporter) -> None:
        """Report the erasures whose files are gone by now."""
        self._next_purge = time.monotonic() + PURGE_EVERY_S
        now = self._clock()
        reporter.publish(
            [
                ChangeReport(
                    change_id=row["change_id"],
                    kind=row["kind"],
                    subject=row["subject"],
                    accepted_at=row["at"],
                    store=Store.LAKE,
                    state=StoreState.DONE,
                    reported_at=now,
                    removed=row["removed"],
                )
                for row in self._eraser.purge(now)
            ]
        )
