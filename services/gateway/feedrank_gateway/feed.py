"""Makes one page: candidates, filters, scores, spread; and what to do when a part is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Protocol

import numpy as np
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.redis_keys import SERVED
from feedrank_core.contracts.slates import Degraded
from feedrank_core.ranking.cached_source import CachedSource
from feedrank_core.ranking.candidates import SOURCES, Candidates
from feedrank_core.ranking.freshness_scorer import FreshnessScorer
from feedrank_core.ranking.inactive_filter import InactiveFilter
from feedrank_core.ranking.own_filter import OwnFilter
from feedrank_core.ranking.pipeline import rank
from feedrank_core.ranking.seen_filter import SeenFilter
from feedrank_core.ranking.served_filter import ServedFilter
from feedrank_core.ranking.spread_selector import WINDOW, SpreadSelector
from feedrank_core.ranking.stages import Filter

from feedrank_gateway.cursor import Cursor, CursorCodec
from feedrank_gateway.page import Page, Place
from feedrank_gateway.ports import Cache, CacheRead, CacheUnavailableError
from feedrank_gateway.serving_bundle import ServingBundle

KEY_BYTES = 8
MAX_SERVED = SERVED.max_bytes // KEY_BYTES
"""A session ends here: its served keys fill their value."""

_SOURCES = tuple(str(source) for source in SOURCES)


class NoBundleError(RuntimeError):
    """Nothing can be served: no bundle was ever published here, or it is harmed."""


class StaleCursorError(RuntimeError):
    """The session behind this cursor is over; its served items are no longer known."""


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """A checked request."""

    user_id: str
    limit: int
    surface: Surface
    cursor: Cursor | None


class Bundles(Protocol):
    """Which bundle serves now, and whether it does so for one that cannot."""

    current: ServingBundle | None
    stands_in: bool


class FeedService:
    """Answers feeds. Never fails while a bundle is there; says what it had to do without."""

    def __init__(
        self,
        *,
        cache: Cache,
        cursors: CursorCodec,
        bundles: Bundles,
        log_slate: Callable[[Page], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache, self._cursors, self._bundles = cache, cursors, bundles
        self._log_slate, self._clock = log_slate, clock

    async def page(self, request: FeedRequest) -> Page:
        """The next page. Raises: NoBundleError, StaleCursorError."""
        bundle = self._bundles.current
        if bundle is None:
            raise NoBundleError("no bundle serves yet")
        now, cursor = self._clock(), request.cursor
        session_id = cursor.session_id if cursor else _new_id()
        degraded = [Degraded.BUNDLE] if self._bundles.stands_in else []
        try:
            read = await self._cache.read(
                bundle.bundle_id, request.user_id, session_id if cursor else None
            )
        except CacheUnavailableError:
            degraded += [Degraded.CANDIDATES, Degraded.SERVED]
            num_before = cursor.num_served if cursor else 0
            ranked = _popular_page(bundle, request, num_before)
        else:
            if cursor and read.served is None:
                raise StaleCursorError("the items served in this session are no longer known")
            num_before = len(read.served) // KEY_BYTES if read.served else 0
            ranked = _page(bundle, request, read, degraded, now)
        chosen = ranked.first(min(request.limit, MAX_SERVED - num_before))
        if Degraded.SERVED not in degraded:
            await self._write_served(request, session_id, chosen, degraded)
        more = len(ranked) > len(chosen) and num_before + len(chosen) < MAX_SERVED
        after = Cursor(session_id, num_before + len(chosen))
        page = Page(
            request_id=_new_id(),
            session_id=session_id,
            user_id=request.user_id,
            surface=request.surface,
            served_at=now,
            bundle=bundle.bundle_id,
            degraded=tuple(degraded),
            num_before=num_before,
            places=_places(bundle, chosen),
            next_cursor=self._cursors.encode(after, request.user_id) if more else None,
        )
        self._log_slate(page)
        return page

    async def _write_served(
        self, request: FeedRequest, session_id: str, chosen: Candidates, degraded: list[Degraded]
    ) -> None:
        if not len(chosen):
            return
        try:
            await self._cache.append_served(
                request.user_id,
                session_id,
                chosen.key_N.tobytes(),
                is_first=request.cursor is None,
            )
        except CacheUnavailableError:
            degraded.append(Degraded.SERVED)


def _page(
    bundle: ServingBundle,
    request: FeedRequest,
    read: CacheRead,
    degraded: list[Degraded],
    now: datetime,
) -> Candidates:
    """Up to limit + 1 places: cached candidates, topped up by what is popular.

    Popular first where readers like this one are, then everywhere.
    """
    filters = [*_filters(bundle, request), SeenFilter(_keys(read.seen))]
    before = np.empty(0, dtype=np.intp)
    if read.served:
        served_M = _keys(read.served)
        filters.append(ServedFilter(served_M))
        before = bundle.rows_of(served_M[-WINDOW + 1 :])
    wanted = request.limit + 1
    pools = [_cached(bundle, read, degraded), bundle.popular_in(read.segment), bundle.popular]
    pages: list[Candidates] = []
    for pool in pools:
        if pool is None:
            continue
        page = rank(
            pool,
            filters=filters,
            scorers=(FreshnessScorer(now.timestamp()),),
            selector=_selector(bundle, before),
            limit=wanted,
        )
        pages.append(page)
        wanted -= len(page)
        if not wanted:
            break
        filters = [*filters, ServedFilter(page.key_N)]
        before = np.concatenate([before, page.index_N])
    return reduce(Candidates.followed_by, pages)


def _cached(bundle: ServingBundle, read: CacheRead, degraded: list[Degraded]) -> Candidates | None:
    """The reader's own candidates; None where there are none, or harmed ones."""
    if read.candidates is None:
        return None
    try:
        return bundle.hydrate(CachedSource(read.candidates, len(bundle.items))())
    except ValueError:
        degraded.append(Degraded.CANDIDATES)
        return None


def _popular_page(bundle: ServingBundle, request: FeedRequest, num_before: int) -> Candidates:
    """Without the cache: the part of one fixed order that this session has not had.

    A longer selection begins with the shorter one, so pages do not repeat here either.
    """
    whole = rank(
        bundle.popular,
        filters=_filters(bundle, request),
        scorers=(),
        selector=SpreadSelector(),
        limit=num_before + request.limit + 1,
    )
    return whole.take(np.arange(num_before, len(whole)))


def _filters(bundle: ServingBundle, request: FeedRequest) -> list[Filter]:
    own = bundle.creators.get(request.user_id)
    return [InactiveFilter()] if own is None else [InactiveFilter(), OwnFilter(own)]


def _selector(bundle: ServingBundle, before_N: np.ndarray) -> SpreadSelector:
    if not len(before_N):
        return SpreadSelector()
    last_N = before_N[-WINDOW + 1 :]
    return SpreadSelector(
        creators_before=tuple(bundle.items.creator_I[last_N].tolist()),
        categories_before=tuple(bundle.items.category_I[last_N].tolist()),
    )


def _new_id() -> str:
    return os.urandom(16).hex()


def _keys(packed: bytes | None) -> np.ndarray:
    if not packed:
        return np.empty(0, dtype=np.int64)
    return np.frombuffer(packed, dtype=np.int64, count=len(packed) // KEY_BYTES)


def _places(bundle: ServingBundle, chosen: Candidates) -> list[Place]:
    return [
        Place(item_id, _SOURCES[source], value, score, bundle.reasons[source][category])
        for item_id, source, category, value, score in zip(
            bundle.item_ids(chosen.index_N),
            chosen.source_N.tolist(),
            chosen.category_N.tolist(),
            chosen.value_N.tolist(),
            chosen.score_N.tolist(),
            strict=True,
        )
    ]
