"""Keeps the serving bundle current: polls the pointer, verifies off the event loop, swaps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import structlog
from feedrank_core.runtime.bundle_store import BundleError, BundleStore

from feedrank_gateway.ports import Pointer
from feedrank_gateway.serving_bundle import ServingBundle

RETRY_S = 30.0
"""A refused bundle is read again after this long, not at every poll: hashing it is work."""

log = structlog.get_logger(__name__)


class BundleWatcher:
    """Holds the bundle that serves and the one before it, so that a way back costs nothing.

    `current` is replaced by one assignment; a request keeps the bundle it began with. A bundle
    that is harmed, unfinished or of another schema is refused, counted, and the old one stays; a
    process that holds none yet takes the newest sound one on disk. `stands_in` says so.
    """

    def __init__(
        self,
        store: BundleStore,
        pointer: Pointer,
        *,
        poll_s: float,
        on_swap: Callable[[str], None] = lambda outcome: None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store, self._pointer = store, pointer
        self._poll_s, self._retry_polls = poll_s, max(1, round(retry_s / poll_s))
        self._on_swap = on_swap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bundle-watcher", daemon=True)
        self._refused: dict[str, int] = {}
        self.current: ServingBundle | None = None
        self.previous: ServingBundle | None = None
        self.stands_in = False
        """Whether `current` serves because the bundle that should was refused."""

    @property
    def cache_forgot(self) -> bool:
        """Whether the cache was emptied, and may lack candidates that were written."""
        return self._pointer.cache_forgot

    def start(self) -> None:
        """Poll once, then from a thread. Blocks: until a bundle that is there is verified."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def poll(self) -> None:
        """Look once, and swap when the pointer names another bundle that is sound."""
        wanted = self._pointer.current_id()
        if wanted is None:
            return
        if self.current and wanted == self.current.bundle_id:
            self.stands_in = False
            return
        if self.previous and wanted == self.previous.bundle_id:
            self._swap(self.previous)
            return
        if self._refused.get(wanted, 0) > 0:
            self._refused[wanted] -= 1
            return
        try:
            found = ServingBundle.of(self._store.open(wanted))
        except BundleError as error:
            self._on_swap("refused")
            log.error("bundle_refused", bundle=wanted, reason=str(error))
            if self.current is None and (other := self._newest_sound(wanted)):
                self._swap(other)
            self.stands_in = self.current is not None
            self._refused = {wanted: self._retry_polls}
            return
        self._swap(found)

    def _newest_sound(self, refused: str) -> ServingBundle | None:
        for bundle_id in reversed(self._store.ids()):
            if bundle_id != refused:
                with contextlib.suppress(BundleError):
                    return ServingBundle.of(self._store.open(bundle_id))
        return None

    def _swap(self, found: ServingBundle) -> None:
        self.current, self.previous = found, self.current
        self.stands_in = False
        self._refused = {}
        self._on_swap("served")
        log.info("bundle_served", bundle=found.bundle_id, num_items=len(found.items))

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.poll()
            except Exception:
                log.exception("bundle_poll_failed")
