"""The cache in Redis: one MGET before the ranking, one write after it."""

from __future__ import annotations

from typing import Any

from feedrank_core.contracts.redis_keys import CANDIDATES, SEEN, SEGMENT, SERVED

from feedrank_gateway.adapters.resp import RespClient
from feedrank_gateway.breaker import Breaker
from feedrank_gateway.ports import CacheRead, CacheUnavailableError


class RedisCache:
    """Cache on Redis behind a breaker. Nothing connects before the first call."""

    def __init__(self, url: str, *, timeout_s: float, breaker: Breaker | None = None) -> None:
        self._redis = RespClient(url, timeout_s=timeout_s)
        self._breaker = breaker or Breaker()

    async def read(self, bundle_id: str, user_id: str, session_id: str | None) -> CacheRead:
        """As the port says. Raises: CacheUnavailableError."""
        keys = [
            CANDIDATES.key(bundle=bundle_id, user=user_id),
            SEEN.key(user=user_id),
            SEGMENT.key(user=user_id),
        ]
        if session_id is not None:
            keys.append(SERVED.key(user=user_id, session=session_id))
        found = await self._call("MGET", *keys)
        return CacheRead(*found, *(() if session_id is not None else (None,)))

    async def append_served(
        self, user_id: str, session_id: str, keys: bytes, *, is_first: bool
    ) -> None:
        """Add keys to the session and renew its life. Raises: CacheUnavailableError.

        A session's first page is one SET with its time to live; later ones APPEND, so that two
        pages asked for at once lose nothing.
        """
        key, ttl_s = SERVED.key(user=user_id, session=session_id), SERVED.ttl_s or 0
        if is_first:
            await self._call("SET", key, keys, "EX", ttl_s)
            return
        await self._call("APPEND", key, keys)
        await self._call("EXPIRE", key, ttl_s)

    async def close(self) -> None:
        """Release the connection."""
        await self._redis.close()

    async def _call(self, *command: str | bytes | int) -> Any:
        if not self._breaker.allows():
            raise CacheUnavailableError("the cache failed just now; waiting before the next try")
        try:
            answer = await self._redis.call(*command)
        except (OSError, TimeoutError) as error:
            self._breaker.failed()
            raise CacheUnavailableError(str(error) or "no answer in time") from error
        self._breaker.succeeded()
        return answer
