"""Removes a reader's records from the Redis bus, for good: from its streams and from its file.

Kafka has no such thing; there a record goes with its topic's retention.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import orjson
import redis

from feedrank_core.contracts.topics import DLQ_SUFFIX, Topic
from feedrank_core.runtime import bus_redis_scripts as scripts
from feedrank_core.runtime.bus import Record, partition_of
from feedrank_core.runtime.bus_redis_streams import PAGE_RECORDS, entry_id, to_record

_NAMING = ("user_id", "into")
"""The fields of the contracts that hold a reader's id."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def erase(
    client: redis.Redis,
    topic: Topic,
    user_id: str,
    until: datetime,
    read: Mapping[int, int] | None,
) -> tuple[int, int]:
    """Remove the reader's records accepted by then; how many, and how many were not read yet.

    What has no instant is of the past: withdrawals, and what cannot be read.
    """
    is_twin = topic.name.endswith(DLQ_SUFFIX)
    partition = 0 if is_twin else partition_of(user_id, topic.partitions)
    end = None if read is None else read[partition]
    removed = left = 0
    for page in _pages(client, topic, partition, None if is_twin else user_id):
        if is_twin:
            letters = [(r, _letter_of(r)) for r in page]
            gone = [
                r
                for r, letter in letters
                if _carries(letter, user_id) and _accepted_at(letter.value) <= until
            ]
        else:
            gone = [r for r in page if _accepted_at(r.value) <= until]
        passed = gone if end is None else [r for r in gone if r.offset < end]
        removed += remove(client, passed)
        if topic.compacted:
            _drop_last(client, topic, passed)
        left += len(gone) - len(passed)
    return removed, left


def remove(client: redis.Redis, records: Sequence[Record]) -> int:
    """Remove these entries, and note that they are no loss; how many were there."""
    if not records:
        return 0
    with client.pipeline(transaction=False) as pipe:
        for record in records:
            noted = scripts.erased_key(record.topic, record.partition)
            pipe.zadd(noted, {str(record.offset): record.offset})
            stream = scripts.stream_key(record.topic, record.partition)
            pipe.xdel(stream, entry_id(record.offset))
        return sum(pipe.execute()[1::2])


def num_erased(client: redis.Redis, topic: str, partition: int, start: int, end: int) -> int:
    """How many of the offsets from `start` up to `end` were erased."""
    noted = scripts.erased_key(topic, partition)
    return cast(int, client.zcount(noted, start, f"({end}"))


def begin_rewrite(client: redis.Redis) -> bool:
    """Have the server write its append-only file anew; False while a former rewrite goes on.

    A rewrite that began before a removal still holds what was removed.
    """
    if is_rewriting(client):
        return False
    if _persistence(client)["aof_enabled"]:
        client.bgrewriteaof()
    return True


def is_rewriting(client: redis.Redis) -> bool:
    """Whether a rewrite of the append-only file is under way."""
    state = _persistence(client)
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def _persistence(client: redis.Redis) -> dict[str, Any]:
    return cast("dict[str, Any]", client.info("persistence"))


def _pages(
    client: redis.Redis, topic: Topic, partition: int, key: str | None
) -> Iterator[list[Record]]:
    """The partition's records (of a key), a page's worth at a time."""
    stream, start = scripts.stream_key(topic.name, partition), "-"
    select = client.register_script(scripts.SELECT)
    while start:
        args = [start, PAGE_RECORDS, "" if key is None else key]
        following, entries = cast(list, select(keys=[stream], args=args))
        if entries:
            yield [
                to_record(topic.name, partition, entry, dict(zip(f[::2], f[1::2], strict=True)))
                for entry, f in entries
            ]
        start = following.decode()


def _drop_last(client: redis.Redis, topic: Topic, records: Sequence[Record]) -> None:
    """Forget those of these that are the last of their keys."""
    drop = client.register_script(scripts.DROP_LAST)
    for record in records:
        place = f"{record.partition}:{record.offset}:"
        drop(keys=[scripts.latest_key(topic.name)], args=[record.key, place])


def _accepted_at(value: bytes | None) -> datetime:
    try:
        moment = datetime.fromisoformat(orjson.loads(value or b"")["accepted_at"])
    except (ValueError, KeyError, TypeError):
        return _LONG_AGO
    return moment if moment.tzinfo else _LONG_AGO


class _Letter(NamedTuple):
    """The record in a dead letter."""

    key: str | None
    value: bytes


def _letter_of(record: Record) -> _Letter:
    letter = orjson.loads(record.value or b"{}")
    return _Letter(letter.get("key"), base64.b64decode(letter.get("value", "")))


def _carries(letter: _Letter, user_id: str) -> bool:
    """Whether a dead letter holds a record of this reader, or an order that names them."""
    if letter.key == user_id:
        return True
    try:
        return _names(orjson.loads(letter.value), user_id)
    except orjson.JSONDecodeError:
        # Quoted, since the id of one reader may be a part of another's, or of anything.
        quoted = map(_text, _STRING.findall(letter.value))
        return orjson.dumps(user_id) in letter.value or user_id in quoted


def _names(body: Any, user_id: str) -> bool:
    parts = [body]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            # As text: a number in the place of an id is one of the things that are refused.
            if user_id in (str(part.get(field)) for field in _NAMING):
                return True
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return False


def _text(quoted: bytes) -> str | None:
    try:
        return orjson.loads(quoted)
    except orjson.JSONDecodeError:
        return None
