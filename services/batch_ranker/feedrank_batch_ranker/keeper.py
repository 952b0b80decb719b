"""Gives back what the cache has lost: candidates of the bundle that serves, then its pointer.

`publish` sets the pointer after the candidates, so a cache that does not name the bundle may lack
any of them. Gateways call feeds degraded while there is no pointer. Where single values were
evicted, a sample tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from threading import Event

import structlog
from feedrank_core.contracts.redis_keys import CURRENT_BUNDLE
from feedrank_core.runtime.metrics import Metrics
from redis import RedisError

from feedrank_batch_ranker.app import App
from feedrank_batch_ranker.erased import RankedUsers, forget_absent, is_older
from feedrank_batch_ranker.rank import Ranker
from feedrank_batch_ranker.settings import Settings
from feedrank_batch_ranker.writers import abandoned, writing
from feedrank_batch_ranker.written import missing

REST = 10
"""After writing it draws no sample for this many times as long: a cache that is too small for its
readers would otherwise keep a core busy. That it was emptied is always seen."""

log = structlog.get_logger(__name__)


class Keeper:
    """Looks every so often, and writes for those readers who lack candidates."""

    def __init__(self, at: App, settings: Settings, metrics: Metrics) -> None:
        self._at, self._settings, self._metrics = at, settings, metrics
        self._looks = 0
        self._rests_until = float("-inf")
        self.trouble: str | None = "has not looked at the cache yet"

    def run(self, stopping: Event) -> None:
        """Look until told to stop; what fails is tried again. Blocks."""
        while not stopping.is_set():
            try:
                self.look(stopping.is_set)
                self.trouble = None
            except RedisError as error:
                self._report("the cache does not answer", error)
            except Exception as error:
                # Whatever a bundle, its engine or the table may hold: the next may be whole.
                self._report("the bundle or the users table cannot be used", error)
            stopping.wait(self._settings.keep_every_s)

    def look(self, is_over: Callable[[], bool] = lambda: False) -> int:
        """Write what the serving bundle's readers lack; of how many that was.

        A table that is replaced meanwhile ends it, so that who was erased is forgotten at once: the
        next look goes on with the new one.

        Raises: RedisError, BundleError, OSError, ArrowInvalid, and what an engine raises.
        """
        bundle_id, cache, users = self._at.store.current_id(), self._at.cache, self._at.users
        self._sweep(bundle_id, is_over)
        if bundle_id is None:
            return 0
        is_unnamed = cache.get(CURRENT_BUNDLE.key()) != bundle_id.encode()
        if not is_unnamed and not self._sample_lacks(bundle_id):
            return 0
        began = time.monotonic()
        self.trouble = "candidates that the cache lost are being written again"
        log.warning("candidates_lost", bundle=bundle_id, unnamed=is_unnamed)
        ranked = RankedUsers(users)

        def must_end() -> bool:
            return is_over() or ranked.is_replaced

        ranker = Ranker(self._at.store.open(bundle_id), self._settings, self._metrics)
        with writing(users.parent):
            num_readers = ranker.write_missing(users, cache, must_end)
            if not must_end() and self._at.store.current_id() == bundle_id:
                cache.set(CURRENT_BUNDLE.key(), bundle_id)
            ranked.forget_erased(cache, bundle_id)
        self._rests_until = time.monotonic() + REST * (time.monotonic() - began)
        log.info("candidates_written", bundle=bundle_id, readers=num_readers)
        return num_readers

    def _sweep(self, bundle_id: str | None, is_over: Callable[[], bool]) -> None:
        """Forget who was erased while a writer wrote that was killed, or failed, before it did.

        A table of before the bundle lacks readers who are in it: then a later table tells.
        """
        left = abandoned(self._at.users.parent)
        if not left or is_older(self._at.users, self._as_of(bundle_id)):
            return
        num_values = forget_absent(self._at.cache, self._at.users, is_over)
        if num_values:
            log.warning("erased_forgotten", values=num_values)
        if is_over():
            return
        for mark in left:
            mark.unlink(missing_ok=True)

    def _as_of(self, bundle_id: str | None) -> datetime | None:
        if bundle_id is None:
            return None
        return self._at.store.open(bundle_id, verify=False).manifest.as_of

    def _sample_lacks(self, bundle_id: str) -> bool:
        if time.monotonic() < self._rests_until:
            return False
        self._looks += 1
        seed = self._settings.seed + self._looks
        return missing(self._at.cache, self._at.users, bundle_id, seed=seed)[0] > 0

    def _report(self, trouble: str, error: Exception) -> None:
        if self.trouble != trouble:
            log.warning("waiting", reason=trouble, error=str(error))
        self.trouble = trouble
