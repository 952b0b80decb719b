"""The registry of keys in the `cache` Redis: one writer each, its readers, type, size, life.

Everything here can be rebuilt: the cache may be flushed or may evict at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400
FOLLOWED_LENGTH = 500
"""Creators that `followed` holds per user."""
TRENDING_EVERYONE = "everyone"
"""The segment of `trending` that holds all readers; no segment is called so, they have a bar."""


@dataclass(frozen=True)
class RedisKey:
    """A family of keys. `template` is filled with `format`; sizes are of one value in bytes.

    `ttl_s` is None for a key that is replaced and never expires. `planned` are those of the readers
    that do not read it yet.
    """

    name: str
    template: str
    writer: str
    readers: frozenset[str]
    redis_type: str
    value: str
    max_bytes: int
    ttl_s: int | None
    planned: frozenset[str] = frozenset()

    def key(self, **parts: str) -> str:
        """The key of one entity."""
        return self.template.format(**parts)


CANDIDATES = RedisKey(
    name="candidates",
    template="cand:{bundle}:{user}",
    writer="batch_ranker",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="ranking.packed: uint32 dense item indices and float16 scores, best first",
    max_bytes=3_200,
    ttl_s=3 * DAY_S,
)
CURRENT_BUNDLE = RedisKey(
    name="current_bundle",
    template="bundle:current",
    writer="batch_ranker",
    readers=frozenset({"gateway", "model_server"}),
    redis_type="string",
    value="the id of the bundle that serves, as CURRENT in the bundle store says; without it, the"
    " candidates are written again",
    max_bytes=64,
    ttl_s=None,
    planned=frozenset({"model_server"}),
)
SERVED = RedisKey(
    name="served",
    template="served:{user}:{session}",
    writer="gateway",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="int64 item keys in the order served",
    max_bytes=16_000,
    ttl_s=6 * 3600,
)
SEEN = RedisKey(
    name="seen",
    template="seen:{user}",
    writer="feature_store",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="int64 item keys the user was shown or acted on, newest last, at most 2000",
    max_bytes=16_000,
    ttl_s=30 * DAY_S,
)
FOLLOWED = RedisKey(
    name="followed",
    template="followed:{user}",
    writer="feature_store",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="JSON list of creator ids, newest last, at most 500",
    max_bytes=66_000,
    ttl_s=30 * DAY_S,
    planned=frozenset({"gateway"}),
)
HIDDEN = RedisKey(
    name="hidden",
    template="hidden:{user}",
    writer="feature_store",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="int64 item keys the user hid or reported, newest last, at most 2000",
    max_bytes=16_000,
    ttl_s=30 * DAY_S,
    planned=frozenset({"gateway"}),
)
SEGMENT = RedisKey(
    name="segment",
    template="segment:{user}",
    writer="feature_store",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="`country|platform`, as `contracts.bundle.segment_of` writes it",
    max_bytes=16,
    ttl_s=30 * DAY_S,
)
TRENDING = RedisKey(
    name="trending",
    template="trending:{segment}",
    writer="feature_store",
    readers=frozenset({"gateway"}),
    redis_type="string",
    value="int64 item keys, best first, at most 500; `trending:everyone` for all readers",
    max_bytes=4_000,
    ttl_s=DAY_S,
    planned=frozenset({"gateway"}),
)
FILLED_FROM = RedisKey(
    name="filled_from",
    template="features:filled_from",
    writer="feature_store",
    readers=frozenset({"feature_store"}),
    redis_type="string",
    value="the id of the stream's state that this cache was filled from; without it, it is filled",
    max_bytes=64,
    ttl_s=None,
)

REDIS_KEYS: dict[str, RedisKey] = {
    k.name: k
    for k in (
        CANDIDATES,
        CURRENT_BUNDLE,
        SERVED,
        SEEN,
        HIDDEN,
        SEGMENT,
        FOLLOWED,
        TRENDING,
        FILLED_FROM,
    )
}
