"""Receipts of erasures and merges, from what the stores report. They hold no reader's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, Lock, Thread

import structlog
from feedrank_core.contracts.topics import CHANGE_REPORTS, USER_CHANGES, Topic
from feedrank_core.contracts.user_changes import (
    ChangeKind,
    ChangeReport,
    Receipt,
    Store,
    StoreReceipt,
    StoreState,
    UserChange,
    stores_of,
)
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Record
from feedrank_core.runtime.subjects import Subjects
from pydantic import ValidationError

PAUSE_S = 1.0

log = structlog.get_logger(__name__)


@dataclass
class _Known:
    change_id: str
    kind: ChangeKind
    subject: str
    accepted_at: datetime
    stores: dict[Store, StoreReceipt] = field(default_factory=dict)

    def receipt(self) -> Receipt:
        waiting = {s: StoreReceipt(store=s, state=StoreState.PENDING) for s in stores_of(self.kind)}
        return Receipt(
            receipt_id=self.change_id,
            kind=self.kind,
            subject=self.subject,
            accepted_at=self.accepted_at,
            stores=tuple((waiting | self.stores).values()),
        )


class ReceiptBook:
    """Every order and what was reported of it. About 1 KB of memory an order."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._known: dict[str, _Known] = {}
        self._last_erasure: dict[str, _Known] = {}
        self._lock = Lock()
        self._stop = Event()

    def start(self) -> None:
        """Follow the bus from threads of its own, which end by themselves after `stop`."""
        for topic, take in ((USER_CHANGES, self._take_order), (CHANGE_REPORTS, self._take_report)):
            Thread(target=self._follow, args=(topic, take), daemon=True).start()

    def stop(self) -> None:
        """Take nothing in any more."""
        self._stop.set()

    def add(self, change: UserChange) -> Receipt:
        """The receipt of an order that the bus holds."""
        subject = self._subjects.of(change.user_id)
        return self._entry(change.change_id, change.kind, subject, change.accepted_at).receipt()

    def take(self, report: ChangeReport) -> None:
        """Enter what a store reports."""
        known = self._entry(report.change_id, report.kind, report.subject, report.accepted_at)
        known.stores[report.store] = StoreReceipt(
            store=report.store,
            state=report.state,
            reported_at=report.reported_at,
            expires_at=report.expires_at,
            removed=report.removed,
        )

    def by_id(self, receipt_id: str) -> Receipt | None:
        """A receipt by what the order was answered with."""
        known = self._known.get(receipt_id)
        return known and known.receipt()

    def last_erasure(self, user_id: str) -> Receipt | None:
        """The receipt of the reader's last erasure."""
        known = self._last_erasure.get(self._subjects.of(user_id))
        return known and known.receipt()

    def _entry(
        self, change_id: str, kind: ChangeKind, subject: str, accepted_at: datetime
    ) -> _Known:
        with self._lock:
            known = self._known.get(change_id)
            if known is None:
                known = self._known[change_id] = _Known(change_id, kind, subject, accepted_at)
            last = self._last_erasure.get(subject)
            if kind is ChangeKind.ERASE and (last is None or last.accepted_at <= accepted_at):
                self._last_erasure[subject] = known
            return known

    def _take_order(self, value: bytes) -> None:
        self.add(UserChange.model_validate_json(value))

    def _take_report(self, value: bytes) -> None:
        self.take(ChangeReport.model_validate_json(value))

    def _follow(self, topic: Topic, take: Callable[[bytes], object]) -> None:
        while not self._stop.is_set():
            try:
                for record in self._bus.broadcast(topic):
                    if self._stop.is_set():
                        return
                    if record is not None and record.value is not None:
                        _read(record, take)
            except BusUnavailableError:
                self._stop.wait(PAUSE_S)


def _read(record: Record, take: Callable[[bytes], object]) -> None:
    try:
        take(record.value or b"")
    except ValidationError as error:
        # The store that reads it too puts it among the dead letters.
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        log.warning("unreadable", topic=record.topic, offset=record.offset, reason=reason)
