"""Makes one page: candidates, filters, scores, spread; and what to do when a part is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    """Which bundle serves now, whether it does so for one that cannot, and with what cache."""

    current: ServingBundle | None
    stands_in: bool

    @property
    def cache_forgot(self) -> bool:
        """Whether the cache may lack candidates that were written."""
        ...


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
        now, before = self._clock(), request.cursor or Cursor(_new_id())
        degraded = [Degraded.BUNDLE] if self._bundles.stands_in else []
        try:
            read = await self._cache.read(
                bundle.bundle_id, request.user_id, before.session_id if request.cursor else None
            )
        except CacheUnavailableError:
            degraded += [Degraded.CANDIDATES, Degraded.SERVED]
            turn = _without_the_cache(bundle, request, before)
        else:
            if before.num_held and read.served is None:
                raise StaleCursorError("the items served in this session are no longer known")
            turn = await self._with_the_cache(bundle, request, before, read, degraded, now)
        page = Page(
            request_id=_new_id(),
            session_id=before.session_id,
            user_id=request.user_id,
            surface=request.surface,
            served_at=now,
            bundle=bundle.bundle_id,
            degraded=tuple(degraded),
            num_before=turn.num_before,
            places=_places(bundle, turn.chosen),
            next_cursor=self._cursors.encode(turn.after, request.user_id) if turn.goes_on else None,
        )
        self._log_slate(page)
        return page

    async def _with_the_cache(
        self,
        bundle: ServingBundle,
        request: FeedRequest,
        before: Cursor,
        read: CacheRead,
        degraded: list[Degraded],
        now: datetime,
    ) -> _Turn:
        if read.candidates is None and self._bundles.cache_forgot:
            degraded.append(Degraded.CANDIDATES)
        held_M = _keys(read.served)
        missed_M = held_M[:0]
        if before.num_popular:  # shown while the cache was away: held from now on
            missed_M = _popular_order(bundle, request, before.num_popular).key_N
            held_M = np.concatenate([held_M, missed_M])
        num_before = max(before.num_served, len(held_M))
        ranked = _page(bundle, request, read, held_M, degraded, now)
        chosen = ranked.first(min(request.limit, MAX_SERVED - num_before))
        num_held, num_popular = len(held_M) + len(chosen), 0
        keys = np.concatenate([missed_M, chosen.key_N]) if len(missed_M) else chosen.key_N
        if len(chosen) and not await self._hold(request.user_id, before, keys):
            degraded.append(Degraded.SERVED)
            num_held, num_popular = before.num_held, before.num_popular
        after = Cursor(before.session_id, num_before + len(chosen), num_held, num_popular)
        return _Turn(num_before, chosen, after, is_last=len(ranked) == len(chosen))

    async def _hold(self, user_id: str, before: Cursor, keys: np.ndarray) -> bool:
        try:
            await self._cache.append_served(
                user_id, before.session_id, keys.tobytes(), is_first=not before.num_served
            )
        except CacheUnavailableError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a page shows, and where the session stands before and after it."""

    num_before: int
    chosen: Candidates
    after: Cursor
    is_last: bool

    @property
    def goes_on(self) -> bool:
        """Whether there is another page."""
        return not self.is_last and self.after.num_served < MAX_SERVED


def _without_the_cache(bundle: ServingBundle, request: FeedRequest, before: Cursor) -> _Turn:
    """The part of one fixed order that this session has not had.

    A longer selection begins with the shorter one, so pages do not repeat here either.
    """
    num_before, num_popular = before.num_served, before.num_popular
    whole = _popular_order(bundle, request, num_popular + request.limit + 1)
    left = whole.take(np.arange(num_popular, len(whole)))
    chosen = left.first(min(request.limit, MAX_SERVED - num_before))
    after = replace(
        before, num_served=num_before + len(chosen), num_popular=num_popular + len(chosen)
    )
    return _Turn(num_before, chosen, after, is_last=len(left) == len(chosen))


def _page(
    bundle: ServingBundle,
    request: FeedRequest,
    read: CacheRead,
    held_M: np.ndarray,
    degraded: list[Degraded],
    now: datetime,
) -> Candidates:
    """Up to limit + 1 places: cached candidates, topped up by what is popular.

    Popular first where readers like this one are, then everywhere.
    """
    filters = [*_filters(bundle, request), SeenFilter(_keys(read.seen))]
    before = np.empty(0, dtype=np.intp)
    if len(held_M):
        filters.append(ServedFilter(held_M))
        before = bundle.rows_of(held_M[-WINDOW + 1 :])
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


def _popular_order(bundle: ServingBundle, request: FeedRequest, num: int) -> Candidates:
    """The first `num` places of an order that knows of this reader only who it is."""
    return rank(
        bundle.popular,
        filters=_filters(bundle, request),
        scorers=(),
        selector=SpreadSelector(),
        limit=num,
    )


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
