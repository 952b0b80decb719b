"""Make a ranked bundle the one that serves, and let the ones before its predecessor go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from feedrank_core.contracts.redis_keys import CANDIDATES, CURRENT_BUNDLE
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.metrics import Metrics
from redis import Redis

from feedrank_batch_ranker.errors import RankerError
from feedrank_batch_ranker.settings import Settings
from feedrank_batch_ranker.written import missing

SCAN_COUNT = 5000


def publish(
    store: BundleStore,
    cache: Redis,
    users: Path,
    bundle_id: str,
    settings: Settings,
    metrics: Metrics,
) -> dict[str, Any]:
    """Flip, then tell the gateways, then retire. Raises: RankerError, BundleError.

    Readers see the file or the key change; either names a bundle whose candidates are written.
    Gateways hold that one and the one before it; one that starts falls back to the newest sound.
    """
    checked = check_candidates(cache, users, bundle_id, settings.seed)
    previous = previous_of(store, bundle_id)
    store.flip(bundle_id)
    cache.set(CURRENT_BUNDLE.key(), bundle_id)
    held = {bundle_id, previous or bundle_id}
    retired = retire(cache, held, settings.retire_ttl_s, metrics)
    return {
        "bundle_id": bundle_id,
        "previous": previous,
        "users_checked": checked,
        "values_retired": retired,
        "bundles_removed": store.keep(settings.bundles_kept, held),
    }


def check_candidates(cache: Redis, users: Path, bundle_id: str, seed: int) -> int:
    """How many users drawn by the seed were found to have candidates. Raises: RankerError."""
    absent, drawn = missing(cache, users, bundle_id, seed=seed)
    if absent:
        raise RankerError(
            f"bundle {bundle_id}: {absent} of {drawn} users have no candidates in the cache;"
            " run `rank` again before `publish`"
        )
    return drawn


def previous_of(store: BundleStore, bundle_id: str) -> str | None:
    """The bundle that serves now; when this one already does, the one before it."""
    current = store.current_id()
    if current != bundle_id:
        return current
    older = [found for found in store.ids() if found < bundle_id]
    return older[-1] if older else None


def retire(cache: Redis, kept: set[str], ttl_s: int, metrics: Metrics) -> int:
    """Candidates of other bundles expire soon; how many values that is."""
    pattern = CANDIDATES.key(bundle="*", user="*")
    retired = 0
    keys = cache.scan_iter(match=pattern, count=SCAN_COUNT)
    others = (key for key in keys if key.split(b":", 2)[1].decode() not in kept)
    for page in _pages(others, SCAN_COUNT):
        with cache.pipeline(transaction=False) as pipe:
            for key in page:
                pipe.expire(key, ttl_s, lt=True)
            pipe.execute()
        retired += len(page)
        metrics.counter("values_retired_total").inc(len(page))
    return retired


def _pages(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    remaining = iter(keys)
    while page := list(islice(remaining, size)):
        yield page
