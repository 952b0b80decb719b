"""Which bundle serves: the cache's pointer, or the store's where the cache cannot say."""

from __future__ import annotations

from feedrank_core.contracts.redis_keys import CURRENT_BUNDLE
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.redis_clients import sync_client
from redis.exceptions import RedisError


class RedisPointer:
    """Asks `bundle:current`, then CURRENT. For use from one thread."""

    def __init__(self, url: str, store: BundleStore, *, timeout_s: float) -> None:
        self._redis = sync_client(url, timeout_s=timeout_s)
        self._store = store
        self.cache_forgot = False

    def current_id(self) -> str | None:
        """The bundle's id, or None before the first flip."""
        try:
            found = self._redis.get(CURRENT_BUNDLE.key())
        except (RedisError, OSError):
            found = None
        if isinstance(found, bytes) and found:
            self.cache_forgot = False
            return found.decode()
        serving = self._store.current_id()
        self.cache_forgot = serving is not None
        return serving

    def close(self) -> None:
        """Release the connection."""
        self._redis.close()
