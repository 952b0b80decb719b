"""The stream's keys in the cache: what each reader has seen, hidden and followed, and trends.

Every value is written whole from the state, so that a replay, an eviction or a flush of the cache
leaves nothing wrong that the next write or a refill does not put right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import orjson
import redis
from feedrank_core.contracts.redis_keys import (
    FILLED_FROM,
    FOLLOWED,
    HIDDEN,
    SEEN,
    SEGMENT,
    TRENDING,
    RedisKey,
)
from redis.client import Pipeline

from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.showing import ReaderView

OF_READERS = (SEEN, HIDDEN, FOLLOWED, SEGMENT)


class CacheKeys:
    """The one writer of these keys. Blocks. Raises: redis.RedisError where the cache is away."""

    def __init__(self, cache: redis.Redis) -> None:
        self._cache = cache

    def write(self, views: Sequence[ReaderView]) -> None:
        """Write what changed of these readers."""
        with self._cache.pipeline(transaction=False) as pipe:
            for view in views:
                for changed, key, value in _values(view):
                    if changed in view.what:
                        _put(pipe, key, key.key(user=view.user_id), value)
            pipe.execute()

    def forget(self, user_ids: Sequence[str]) -> None:
        """Delete every key of these readers."""
        names = [key.key(user=user_id) for key in OF_READERS for user_id in user_ids]
        if names:
            self._cache.delete(*names)

    def trend(self, lists: Mapping[str, Sequence[int]]) -> None:
        """Replace the trending lists of these segments."""
        with self._cache.pipeline(transaction=False) as pipe:
            for segment, keys in lists.items():
                packed = np.array(keys, "<i8").tobytes()
                _put(pipe, TRENDING, TRENDING.key(segment=segment), packed)
            pipe.execute()

    def filled_from(self) -> str | None:
        """Which state, or which attempt to fill it, this cache holds."""
        held = cast("bytes | None", self._cache.get(FILLED_FROM.key()))
        return None if held is None else held.decode()

    def note_filled(self, name: str) -> None:
        """Remember what the cache was filled from, until it is flushed."""
        self._cache.set(FILLED_FROM.key(), name)


def _values(view: ReaderView) -> list[tuple[Changed, RedisKey, bytes]]:
    segment = view.profile.segment.encode() if view.profile else b""
    return [
        (Changed.SEEN, SEEN, view.seen),
        (Changed.HIDDEN, HIDDEN, view.hidden),
        (Changed.FOLLOWED, FOLLOWED, orjson.dumps(view.followed) if view.followed else b""),
        (Changed.PROFILE, SEGMENT, segment),
    ]


def _put(pipe: Pipeline, key: RedisKey, name: str, value: bytes) -> None:
    if value:
        pipe.set(name, value, ex=key.ttl_s)
    else:
        pipe.delete(name)
