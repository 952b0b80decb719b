"""Shows readers' newest state online: Feast's values and the cache's keys, as soon as they change.

Runs in a thread of its own. A reader who changed many times is shown once, as he is now.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event, Lock

import redis
import structlog
from feedrank_core.contracts.features import Priors
from feedrank_core.contracts.redis_keys import TRENDING
from feedrank_core.runtime.metrics import Metrics

from feedrank_feature_store.ports import OnlineFeatures, OnlineRow, OnlineStoreError
from feedrank_feature_store.stream import rows
from feedrank_feature_store.stream.cache_keys import CacheKeys
from feedrank_feature_store.stream.catalogue_state import key_bytes
from feedrank_feature_store.stream.counting import US_PER_S
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.showing import (
    Items,
    ReaderView,
    counter_features,
    find_item,
    gather,
    history_features,
    profile_features,
)
from feedrank_feature_store.stream.state import State, user_key

log = structlog.get_logger(__name__)

PAGE = 500
"""Readers of one write."""
IDLE_S = 0.5
PAUSE_S = 0.5
"""Wait before the next try while the online store or the cache is away."""
CHECK_EVERY_S = 1.0
TRENDING_EVERY_S = 10.0
TRENDING_LENGTH = TRENDING.max_bytes // 8
NOT_AN_EVENT = 0
"""The instant of a mark that stands for no event: a refill."""


class OnlineWriter:
    """Takes marks from the state's outbox under `lock`, writes without it.

    `wake` is set by whoever marks. `forget` and writes exclude each other, so that what was
    gathered before an erasure is never written after it.
    """

    def __init__(
        self,
        state: State,
        lock: Lock,
        keys: CacheKeys,
        online: Callable[[], OnlineFeatures],
        priors: Callable[[], Priors],
        metrics: Metrics,
    ) -> None:
        self._state, self._lock = state, lock
        self._keys, self._open_online = keys, online
        self._priors, self._metrics = priors, metrics
        self._writing = Lock()
        self._online: OnlineFeatures | None = None
        self._refill: _Refill | None = None
        self._next_check = self._next_trends = 0.0
        self.wake = Event()
        self.trouble: str | None = "Feast is loading"

    def run(self, stopping: Event) -> None:
        """Write until told to stop. Blocks."""
        while not stopping.is_set():
            try:
                while not stopping.is_set() and self.step():
                    pass
                self.trouble = None
                self.wake.wait(IDLE_S)
                self.wake.clear()
            except (redis.RedisError, OnlineStoreError) as error:
                if self.trouble is None:
                    log.warning("waiting", reason="the cache does not answer", error=str(error))
                self.trouble = "the cache does not answer"
                stopping.wait(PAUSE_S)

    def step(self) -> bool:
        """Write one page; whether there was one. Raises: redis.RedisError, OnlineStoreError."""
        if self._online is None:
            self._online = self._open_online()
        if time.monotonic() >= self._next_check:
            self._check_filled()
            self._next_check = time.monotonic() + CHECK_EVERY_S
        if time.monotonic() >= self._next_trends:
            self._write_trends()
            self._next_trends = time.monotonic() + TRENDING_EVERY_S
        return self._write_waiting() or self._write_refill()

    def forget(self, user_id: str) -> None:
        """Hold nothing of a reader that the state has let go of. Blocks."""
        with self._writing:
            if self._online is None:
                self._online = self._open_online()
            self._online.forget([user_id])
            self._keys.forget([user_id])
            with self._lock:
                key = user_key(user_id)
                if gather(self._state, {key: (NOT_AN_EVENT, int(Changed.ALL))})[0]:
                    # Somebody new under this id: what they did since is shown again.
                    self._state.waiting_users.mark(key, NOT_AN_EVENT, Changed.ALL)

    def _write_waiting(self) -> bool:
        outbox = self._state.waiting_users
        if not outbox.is_waiting:
            return False
        with self._writing:
            with self._lock:
                marks = outbox.take(PAGE)
            try:
                self._write(marks)
            except BaseException:
                with self._lock:
                    outbox.again(marks)
                raise
            with self._lock:
                outbox.done(marks)
        return True

    def _write_refill(self) -> bool:
        if self._refill is None:
            return False
        with self._writing:
            with self._lock:
                marks = self._refill.next(self._state)
            self._write(marks)
        if self._refill.is_done:
            # A flush in the meantime took the name away, and another refill begins.
            if self._keys.filled_from() == self._refill.name:
                self._keys.note_filled(self._state.id)
                log.info("cache_filled", readers=self._refill.num_readers)
            self._refill = None
        return True

    def _write(self, marks: Mapping[bytes, tuple[int, int]]) -> None:
        started = time.perf_counter()
        with self._lock:
            views, items = gather(self._state, marks)
        priors = self._priors()
        assert self._online is not None
        made = [_row(view, items, priors) for view in views]
        self._online.write(made, datetime.now(UTC))
        self._keys.write(views)
        self._metrics.histogram("write_seconds").observe(time.perf_counter() - started)
        now_s = time.time()
        freshness = self._metrics.histogram("freshness_seconds")
        for since_us, _ in marks.values():
            if since_us != NOT_AN_EVENT:
                freshness.observe(max(now_s - since_us / US_PER_S, 0.0))

    def _check_filled(self) -> None:
        held = self._keys.filled_from()
        if held == self._state.id or (self._refill is not None and held == self._refill.name):
            return
        log.warning("filling_cache", reason="flushed, or filled from another state")
        self._refill = _Refill(f"filling {uuid.uuid4().hex}")
        self._keys.note_filled(self._refill.name)
        self._write_trends(everything=True)

    def _write_trends(self, *, everything: bool = False) -> None:
        with self._lock:
            lists = {
                segment: self._shown(keys)
                for segment, keys in self._state.trending.lists(everything=everything).items()
            }
        self._keys.trend(lists)

    def _shown(self, keys: list[int]) -> list[int]:
        """The first items that may be shown."""
        shown = []
        for key in keys:
            item = find_item(self._state, key_bytes(key))
            if item is not None and item.is_published and item.is_active:
                shown.append(key)
                if len(shown) == TRENDING_LENGTH:
                    break
        return shown


class _Refill:
    """A pass over every reader of the state, in the order of their keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_readers = 0
        self.is_done = False
        self._after = b""

    def next(self, state: State) -> dict[bytes, tuple[int, int]]:
        """The next page of readers as marks."""
        keys: set[bytes] = set()
        for db in (state.users.db, state.profiles.db):
            page = rows.after(state.reader, db, self._after)
            keys.update(key for _, (key, _) in zip(range(PAGE), page, strict=False))
        taken = sorted(keys)[:PAGE]
        self.is_done = len(taken) < PAGE
        self.num_readers += len(taken)
        if taken:
            self._after = taken[-1] + b"\0"
        return {key: (NOT_AN_EVENT, int(Changed.ALL)) for key in taken}


def _row(view: ReaderView, items: Items, priors: Priors) -> OnlineRow:
    counted = view.is_counted
    return OnlineRow(
        view.user_id,
        counter_features(view) if counted else None,
        history_features(view, items, priors) if counted else None,
        profile_features(view) if Changed.PROFILE in view.what else None,
    )
