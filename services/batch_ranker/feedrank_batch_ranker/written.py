"""Whether candidates that should be in the cache still are: it may evict or be flushed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from feedrank_core.contracts.redis_keys import CANDIDATES
from redis import Redis

SAMPLE = 1000


def missing(
    cache: Redis, users: Path, bundle_id: str, *, first: int | None = None, seed: int
) -> tuple[int, int]:
    """How many of a sample of users (of the `first` ones) lack candidates, and its size."""
    ids = pq.read_table(users, columns=["user_id"])["user_id"].slice(0, first)
    chance = np.random.default_rng(seed)
    drawn = chance.choice(len(ids), size=min(SAMPLE, len(ids)), replace=False)
    return sum(lacking(cache, ids.take(drawn).to_pylist(), bundle_id)), len(drawn)


def lacking(cache: Redis, users: Sequence[str], bundle_id: str) -> list[bool]:
    """Of each of these users, whether the cache holds no candidates."""
    with cache.pipeline(transaction=False) as pipe:
        for user in users:
            pipe.exists(CANDIDATES.key(bundle=bundle_id, user=user))
        return [not found for found in pipe.execute()]
