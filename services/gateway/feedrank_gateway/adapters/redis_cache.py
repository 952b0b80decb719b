"""The cache in Redis: one MGET before the ranking, one APPEND after it."""

from __future__ import annotations

from typing import Any

from feedrank_core.contracts.redis_keys import CANDIDATES, SEEN, SERVED
from feedrank_core.runtime.redis_clients import cache_client
from redis.exceptions import RedisError

from feedrank_gateway.breaker import Breaker
from feedrank_gateway.ports import CacheRead, CacheUnavailableError


class RedisCache:
    """Cache on Redis behind a breaker. Nothing connects before the first call."""

    def __init__(self, url: str, *, timeout_s: float, breaker: Breaker | None = None) -> None:
        self._redis = cache_client(url, timeout_s=timeout_s)
        # A short stall at a thousand requests a second must not look like a dead server.
        self._redis.connection_pool.max_connections = 1024
        self._breaker = breaker or Breaker()

    async def read(self, bundle_id: str, user_id: str, session_id: str | None) -> CacheRead:
        """Candidates, seen and (with a session) served keys. Raises: CacheUnavailableError."""
        keys = [CANDIDATES.key(bundle=bundle_id, user=user_id), SEEN.key(user=user_id)]
        if session_id is not None:
            keys.append(SERVED.key(user=user_id, session=session_id))
        found = await self._call("MGET", *keys)
        return CacheRead(found[0], found[1], found[2] if session_id is not None else None)

    async def append_served(self, user_id: str, session_id: str, keys: bytes) -> None:
        """Add keys to the session and renew its life, in one MULTI."""
        key = SERVED.key(user=user_id, session=session_id)
        self._check()
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.append(key, keys)
                pipe.expire(key, SERVED.ttl_s or 0)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.failed()
            raise CacheUnavailableError(str(error)) from error
        self._breaker.succeeded()

    async def close(self) -> None:
        """Release connections."""
        await self._redis.aclose()

    def _check(self) -> None:
        if not self._breaker.allows():
            raise CacheUnavailableError("the cache failed just now; waiting before the next try")

    async def _call(self, *command: str) -> list[bytes | None]:
        self._check()
        try:
            answer: Any = await self._redis.execute_command(*command)
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.failed()
            raise CacheUnavailableError(str(error)) from error
        self._breaker.succeeded()
        return answer
