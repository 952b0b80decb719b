"""Readers' segments, in the cache: `segment:{user}`, for a feed where no candidates are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import redis
from feedrank_core.contracts.bundle import segment_of
from feedrank_core.contracts.redis_keys import SEGMENT
from feedrank_core.contracts.users import User

PAGE = 1_000
"""Users of one round trip."""


class SegmentWriter:
    """The one writer of `segment:`. Blocks. Raises: redis.RedisError where the cache is away."""

    def __init__(self, cache: redis.Redis) -> None:
        self.cache = cache

    def put(self, profiles: Mapping[str, User | None]) -> None:
        """Write the segments of these readers; None withdraws a reader's."""
        with self.cache.pipeline(transaction=False) as pipe:
            for user_id, profile in profiles.items():
                name = SEGMENT.key(user=user_id)
                if profile is None:
                    pipe.delete(name)
                else:
                    pipe.set(name, segment_of(profile.country, profile.platform), ex=SEGMENT.ttl_s)
            pipe.execute()

    def restore(self, users: Path) -> None:
        """Put back what the cache lost, from a users table; what it holds came later and stays."""
        columns = ["user_id", "country", "platform"]
        for batch in pq.ParquetFile(users).iter_batches(PAGE, columns=columns):
            with self.cache.pipeline(transaction=False) as pipe:
                rows = zip(*(batch[name].to_pylist() for name in columns), strict=True)
                for user_id, country, platform in rows:
                    name = SEGMENT.key(user=user_id)
                    pipe.set(name, segment_of(country, platform), nx=True)
                    pipe.expire(name, SEGMENT.ttl_s or 0)
                pipe.execute()
