"""Makes the bus forget an erased reader, once every store has read the order and nothing is late.

Kafka forgets by its topics' retention, and the report says by when. The Redis bus forgets at
once: records, the order itself, merges that name the reader, and the server's file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from feedrank_core.contracts.base import Message
from feedrank_core.contracts.topics import (
    CHANGE_REPORTS,
    TOPICS,
    USER_CHANGES,
    Topic,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import (
    LAKE_GROUP,
    ORDER_GROUPS,
    STREAM_GROUP,
    ChangeKind,
    ChangeReport,
    Store,
    StoreState,
    UserChange,
)
from feedrank_core.runtime.bus import Bus, Forgetful, Record
from feedrank_core.runtime.change_reports import Reporter, report_on
from feedrank_core.runtime.dead_letters import reason_of
from feedrank_core.runtime.lake_schema import has_user
from feedrank_core.runtime.subjects import Subjects
from pydantic import ValidationError

from feedrank_ingestion.lake_sink import GROUP as LAKE_SINK

EVERY_S = 1.0
LATE = timedelta(seconds=30)
"""How long after an order the bus may still be given something from before it.

A group of the intake is some ten calls of 1.2 s at most (`runtime.bus_redis_streams`), and waits
for one before it; a gateway's slates follow within seconds once the bus takes any. Letters about
such records come with their first reading.
"""
SEGMENT = timedelta(days=1)
"""How much longer than its retention a record may lie in Kafka's segment that is written to."""
FORGOTTEN_BY = USER_CHANGES.retention + SEGMENT
"""After this no topic holds a trace of a reader: the orders are what is kept longest."""
CARRIERS: tuple[Topic, ...] = tuple(
    topic
    for t in TOPICS.values()
    if has_user(t.name)
    for topic in (t, with_dead_letters()[t.dlq])
    if topic is not USER_CHANGES
)
"""Topics with readers' ids, but the orders': those go last, when nothing else holds a trace."""

log = structlog.get_logger(__name__)

Read = TypeVar("Read", bound=Message)


class BusEraser:
    """Waits for the readers of the orders, then removes. `step` never blocks for long."""

    def __init__(
        self, bus: Bus, reporter: Reporter, subjects: Subjects, *, clock: Callable[[], datetime]
    ) -> None:
        self._bus, self._reporter, self._subjects = bus, reporter, subjects
        self._clock = clock
        self._forgetful = bus if isinstance(bus, Forgetful) else None
        self._waiting: list[tuple[Record, UserChange]] = []
        self._in_file: list[ChangeReport] = []
        self._is_rewriting = False
        self._next = 0.0

    def resume(self) -> None:
        """Take up what a former process left: settled orders, and reports of unfinished work."""
        if self._forgetful is None:
            return
        settled = self._bus.committed(USER_CHANGES, group=LAKE_GROUP)
        orders = list(_held(self._bus, USER_CHANGES, UserChange))
        self._waiting = [(r, c) for r, c in orders if r.offset < settled[r.partition]]
        self._waiting = [(r, c) for r, c in self._waiting if c.kind is ChangeKind.ERASE]
        reports = {r.key: report for r, report in _held(self._bus, CHANGE_REPORTS, ChangeReport)}
        of_bus = [report for report in reports.values() if report.store is Store.BUS]
        self._in_file = [report for report in of_bus if report.state is not StoreState.DONE]

    def add(self, record: Record, change: UserChange) -> None:
        """An order that the lake has settled. Raises: BusUnavailableError."""
        if change.kind is not ChangeKind.ERASE:
            return
        if self._forgetful is not None:
            self._waiting.append((record, change))
            return
        subject = self._subjects.of(change.user_id)
        report = report_on(
            change,
            subject,
            Store.BUS,
            StoreState.EXPIRES,
            now=self._clock(),
            expires_at=change.accepted_at + FORGOTTEN_BY,
        )
        self._reporter.publish([report])

    def step(self) -> None:
        """Remove what may be, and report it once the server's file is without it.

        Raises: BusUnavailableError.
        """
        if self._forgetful is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        if self._waiting:
            self._forget(self._forgetful)
        if self._in_file:
            self._rewrite(self._forgetful)

    def _forget(self, bus: Forgetful) -> None:
        read = min(self._bus.committed(USER_CHANGES, group=g)[0] for g in ORDER_GROUPS)
        latest = self._clock() - LATE
        due = [(r, c) for r, c in self._waiting if r.offset < read and r.published_at <= latest]
        erased = [(r, c, *self._erase(bus, c.user_id, c.accepted_at)) for r, c in due]
        gone = [(record, change, removed) for record, change, removed, left in erased if not left]
        if not gone:
            return
        orders = [(r, c) for r, c in _held(self._bus, USER_CHANGES, UserChange) if r.offset < read]
        for record, change, removed in gone:
            user_id, at = change.user_id, change.accepted_at
            naming = [r for r, c in orders if user_id in (c.user_id, c.into) and c.accepted_at < at]
            report = report_on(
                change,
                self._subjects.of(user_id),
                Store.BUS,
                StoreState.EXPIRES,
                now=self._clock(),
                removed=removed + len(naming) + 1,
            )
            # Before the order goes: whoever takes over after a crash finds the one or the other.
            self._reporter.publish([report])
            bus.remove([*naming, record])
            self._in_file.append(report)
            self._waiting.remove((record, change))
            self._is_rewriting = False

    def _erase(self, bus: Forgetful, user_id: str, until: datetime) -> tuple[int, int]:
        """Remove from every topic; how many records, and how many a reader has yet to pass."""
        removed = left = 0
        for topic in CARRIERS:
            read = None
            if topic.in_lake and topic.name in TOPICS:
                groups = [LAKE_SINK, *([STREAM_GROUP] if "feature_store" in topic.readers else [])]
                offsets = [self._bus.committed(topic, group=group) for group in groups]
                read = {p: min(of[p] for of in offsets) for p in range(topic.partitions)}
            went, stay = bus.erase(topic, user_id, until, read=read)
            removed, left = removed + went, left + stay
        return removed, left

    def _rewrite(self, bus: Forgetful) -> None:
        if not self._is_rewriting:
            self._is_rewriting = bus.begin_rewrite()
            return
        if bus.is_rewriting():
            return
        done = {"state": StoreState.DONE, "reported_at": self._clock()}
        self._reporter.publish([report.model_copy(update=done) for report in self._in_file])
        log.info("bus_forgot", num=len(self._in_file))
        self._in_file, self._is_rewriting = [], False


def _held(bus: Bus, topic: Topic, model: type[Read]) -> Iterator[tuple[Record, Read]]:
    """What a topic of one partition holds now and can be read."""
    for record in bus.broadcast(topic):
        if record is None:
            return
        if record.value is None:
            continue
        try:
            message = model.model_validate_json(record.value)
        except ValidationError as error:
            # An order is put among the dead letters by whoever reads it to carry it out.
            place = {"topic": topic.name, "offset": record.offset}
            log.warning("unreadable", reason=reason_of(error), **place)
        else:
            yield record, message
