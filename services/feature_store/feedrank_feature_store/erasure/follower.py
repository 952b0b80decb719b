"""Carries out what is left of an order once the stream has applied it, and reports on all of it.

Tables first, then the cache, then the online store: a daily run that read a table before it was
rewritten finds out at its end, and what one that has ended left behind is swept here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import redis
import structlog
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import (
    FEATURES_GROUP,
    STREAM_GROUP,
    Store,
    StoreState,
    UserChange,
)
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Consumer, LeaseLostError, Record
from feedrank_core.runtime.change_reports import Reporter, report_on
from feedrank_core.runtime.subjects import Subjects

from feedrank_feature_store.erasure.cache_sweep import sweep
from feedrank_feature_store.erasure.table_rows import TablesInUseError, only_writer, remove_readers
from feedrank_feature_store.ports import OnlineStoreError
from feedrank_feature_store.stream.orders import change_of

MAX_ORDERS = 500
POLL_S = 0.5
PAUSE_S = 1.0

log = structlog.get_logger(__name__)

Order = tuple[Record, UserChange | None]


class OrderFollower:
    """One member of the group of the orders' readers; `run` is a thread's work."""

    def __init__(
        self,
        bus: Bus,
        cache: redis.Redis,
        features: Path,
        subjects: Subjects,
        forget_online: Callable[[str], None],
        *,
        member: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus, self._cache, self._features = bus, cache, features
        self._subjects, self._forget_online = subjects, forget_online
        self._member, self._clock = member, clock
        self._waiting: list[Order] = []
        self.trouble: str | None = None

    def run(self, stopping: Event) -> None:
        """Follow until told to stop; what fails is tried again. Blocks."""
        while not stopping.is_set():
            self._waiting.clear()
            try:
                with (
                    Reporter(self._bus) as reporter,
                    self._bus.consumer(
                        [USER_CHANGES], group=FEATURES_GROUP, member=self._member
                    ) as consumer,
                ):
                    while not stopping.is_set():
                        self.step(consumer, reporter)
                        self.trouble = None
            except (BusUnavailableError, LeaseLostError, redis.RedisError, OnlineStoreError) as e:
                self.trouble = f"{type(e).__name__}: {e}"
                log.warning("orders_waiting", reason=str(e))
                stopping.wait(PAUSE_S)

    def step(self, consumer: Consumer, reporter: Reporter) -> None:
        """Read orders, carry out those that the stream has applied.

        Raises: BusUnavailableError, LeaseLostError, redis.RedisError, OnlineStoreError.
        """
        records = consumer.poll(max_records=MAX_ORDERS, timeout_s=POLL_S)
        self._waiting += [(record, change_of(record)) for record in records]
        if not self._waiting:
            return
        applied = self._bus.committed(USER_CHANGES, group=STREAM_GROUP)[0]
        due = [(record, change) for record, change in self._waiting if record.offset < applied]
        if not due:
            return
        try:
            self._carry_out([change for _, change in due if change is not None], reporter)
        except TablesInUseError as busy:
            log.info("orders_waiting", reason=str(busy))
            return
        consumer.commit([record for record, _ in due])
        self._waiting = self._waiting[len(due) :]

    def _carry_out(self, changes: Sequence[UserChange], reporter: Reporter) -> None:
        users = {change.user_id for change in changes}
        with only_writer(self._features, wait=False):
            rows = remove_readers(self._features, users)
        keys = sweep(self._cache, users)
        for user_id in users:
            self._forget_online(user_id)
        none: Counter[str] = Counter()
        removed = {
            Store.STREAM_STATE: none,
            Store.FEATURE_TABLES: rows,
            Store.ONLINE_STORE: none,
            Store.CACHE: keys,
        }
        now = self._clock()
        reporter.publish(
            [
                report_on(
                    change,
                    self._subjects.of(change.user_id),
                    store,
                    StoreState.DONE,
                    now=now,
                    removed=of[change.user_id],
                )
                for change in changes
                for store, of in removed.items()
            ]
        )
