"""Redis clients with short timeouts and no retries: a slow cache is a missing cache.

redis-py 7.4 retries for about ten seconds by default, whatever its socket timeout says.
"""

from __future__ import annotations

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_S = 0.25
BATCH_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 64


def cache_client(url: str, *, timeout_s: float = TIMEOUT_S) -> redis.asyncio.Redis:
    """A client for the request path. Values are bytes. Units: `timeout_s` for each answer."""
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=MAX_CONNECTIONS,
        retry=AsyncRetry(NoBackoff(), 0),
        health_check_interval=0,
    )


def sync_client(url: str, *, timeout_s: float = BATCH_TIMEOUT_S) -> redis.Redis:
    """A client for batch work and threads. Values are bytes."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, 1.0),
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
