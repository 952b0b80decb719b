"""What readers have seen, in the cache: `seen:{user}`, packed item keys, newest last.

Extending by the same keys again changes nothing, so a replay of the bus is harmless, and the
whole of it is rewritten from the lake by each daily run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import redis
from feedrank_core.contracts.redis_keys import SEEN
from feedrank_core.features.history import extend_seen, pack_seen, unpack_seen

PAGE = 1_000
"""Users of one round trip."""


class SeenWriter:
    """The one writer of `seen:`. Blocks. Raises: redis.RedisError where the cache is away."""

    def __init__(self, cache: redis.Redis) -> None:
        self.cache = cache

    def extend(self, newer: Mapping[str, Sequence[int]]) -> None:
        """Add item keys to what each user has seen, oldest first."""
        for page in _pages(newer.items()):
            names = [SEEN.key(user=user) for user, _ in page]
            held = self._held(names)
            with self.cache.pipeline(transaction=False) as pipe:
                for name, before, (_, keys) in zip(names, held, page, strict=True):
                    kept = extend_seen(unpack_seen(before).tolist(), keys)
                    pipe.set(name, pack_seen(kept), ex=SEEN.ttl_s)
                pipe.execute()

    def rewrite(self, users: Path) -> int:
        """Put back what a users table says was seen, under what came since; how many users.

        The stream may have been faster than the table: what only the cache holds is newer.
        """
        num_users = 0
        for batch in pq.ParquetFile(users).iter_batches(PAGE, columns=["user_id", "seen"]):
            rows = zip(batch["user_id"].to_pylist(), batch["seen"].to_pylist(), strict=True)
            page = [(user, keys) for user, keys in rows if keys]
            names = [SEEN.key(user=user) for user, _ in page]
            held = self._held(names)
            with self.cache.pipeline(transaction=False) as pipe:
                for name, newer, (_, keys) in zip(names, held, page, strict=True):
                    in_table = set(keys)
                    since = [key for key in unpack_seen(newer).tolist() if key not in in_table]
                    pipe.set(name, pack_seen(extend_seen(keys, since)), ex=SEEN.ttl_s)
                pipe.execute()
            num_users += len(page)
        return num_users

    def _held(self, names: list[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", self.cache.mget(names)) if names else []


def _pages(rows: Iterable[tuple[str, Sequence[int]]]) -> Iterator[list[tuple[str, Sequence[int]]]]:
    remaining = iter(rows)
    while page := list(islice(remaining, PAGE)):
        yield page
