"""The cache's twin for tests without a server."""

from __future__ import annotations

from feedrank_core.contracts.redis_keys import CANDIDATES, SEEN, SEGMENT, SERVED

from feedrank_gateway.ports import CacheRead, CacheUnavailableError


class MemoryCache:
    """Cache in a dict of the same keys and values; `down` makes every call fail."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.down = False

    async def read(self, bundle_id: str, user_id: str, session_id: str | None) -> CacheRead:
        """As the port says."""
        self._check()
        get = self.values.get
        return CacheRead(
            get(CANDIDATES.key(bundle=bundle_id, user=user_id)),
            get(SEEN.key(user=user_id)),
            get(SEGMENT.key(user=user_id)),
            get(SERVED.key(user=user_id, session=session_id)) if session_id else None,
        )

    async def append_served(
        self, user_id: str, session_id: str, keys: bytes, *, is_first: bool
    ) -> None:
        """As the port says."""
        self._check()
        key = SERVED.key(user=user_id, session=session_id)
        self.values[key] = (b"" if is_first else self.values.get(key, b"")) + keys

    async def close(self) -> None:
        """Nothing to release."""

    def _check(self) -> None:
        if self.down:
            raise CacheUnavailableError("down")
