"""Deletes what the cache holds of readers, whoever wrote it: keys are found by the registry.

One pass over all names serves any number of readers. Nobody else could do it: the batch ranker is
no running process, and the gateway does not know the sessions of other gateways.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice

import redis
from feedrank_core.contracts.redis_keys import REDIS_KEYS, RedisKey

PAGE = 5_000


def sweep(cache: redis.Redis, user_ids: Collection[str]) -> Counter[str]:
    """Delete every key of these readers; how many each had. Raises: redis.RedisError."""
    families = [_pattern(key) for key in REDIS_KEYS.values() if "{user}" in key.template]
    wanted, removed = set(user_ids), Counter[str]()
    names = cache.scan_iter(count=PAGE)
    while page := list(islice(names, PAGE)):
        theirs = [(name, user) for name in page if (user := _user_of(name, families)) in wanted]
        if theirs:
            cache.delete(*(name for name, _ in theirs))
            removed.update(user for _, user in theirs)
    return removed


def _pattern(key: RedisKey) -> re.Pattern[str]:
    """Matches a key of the family and gives its reader, whose id may hold any character."""
    parts = re.split(r"\{(\w+)\}", key.template)
    made = [re.escape(parts[0])]
    for name, text in _pairs(parts[1:]):
        made += ["(?P<user>.+)" if name == "user" else "[^:]+", re.escape(text)]
    return re.compile("".join(made), re.DOTALL)


def _pairs(parts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _user_of(name: bytes, families: list[re.Pattern[str]]) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return ""  # Feast's: a packed key
    for family in families:
        if found := family.fullmatch(text):
            return found["user"]
    return ""
