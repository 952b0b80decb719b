"""Reads the Redis bus's streams and hashes: entries as records, failures as one error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime import bus_redis_scripts as scripts
from feedrank_core.runtime.bus import BusUnavailableError, Record
from feedrank_core.runtime.settings import masked

TIMEOUT_S = 1.2
"""How long the server may take to answer; a blocking read stays below it."""
BLOCK_MS = 800
PAGE_RECORDS = 500

Fields = dict[bytes, bytes]


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Any failure of the server is a BusUnavailableError that names the address."""
    try:
        yield
    except redis.RedisError as error:
        raise BusUnavailableError(f"the bus at {masked(url)} did not answer: {error}") from error


def connect(url: str) -> redis.Redis:
    """A client of the bus. Commands are never retried: a publish must not happen twice."""
    return redis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def entry_id(offset: int) -> str:
    """The stream id of an offset: ids start at 1 because 0-0 is no id."""
    return f"{offset + 1}-0"


def read_streams(
    client: redis.Redis, positions: Mapping[tuple[str, int], int], *, count: int, block_ms: int
) -> Iterable[Record]:
    """Up to `count` records of each partition from its position on. Blocks: `block_ms` at most."""
    names = {scripts.stream_key(t, p).encode(): (t, p) for t, p in positions}
    # XREAD gives what comes after an id: the id of the offset before the wanted one.
    wanted: Any = {scripts.stream_key(t, p): f"{n}-0" for (t, p), n in positions.items()}
    answer = cast(list, client.xread(wanted, count=count, block=block_ms))
    for name, entries in answer:
        topic, partition = names[name]
        for entry, fields in entries:
            yield to_record(topic, partition, entry, fields)


def offset_of(entry: bytes) -> int:
    """The offset of a stream id."""
    return int(entry.partition(b"-")[0]) - 1


def to_record(topic: str, partition: int, entry: bytes, fields: Fields) -> Record:
    """An entry of a stream as a record."""
    return Record(
        topic,
        partition,
        offset_of(entry),
        fields[b"k"].decode(),
        fields.get(b"v"),
        _moment(fields[b"t"]),
    )


@lru_cache(maxsize=1024)
def _moment(ms: bytes) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(ms))


def first_record(client: redis.Redis, topic: str, partition: int, start: int = 0) -> Record | None:
    """The partition's first record from an offset on."""
    key = scripts.stream_key(topic, partition)
    page = cast(list, client.xrange(key, min=entry_id(start), count=1))
    return to_record(topic, partition, *page[0]) if page else None


def trim_stream(client: redis.Redis, topic: str, partition: int, end: int, cutoff: datetime) -> int:
    """Drop the partition's records before `end` and `cutoff`; how many went."""
    first = first_record(client, topic, partition)
    if first is None or first.published_at >= cutoff:
        return 0
    low, high = first.offset + 1, end
    while low < high:
        middle = (low + high) // 2
        found = first_record(client, topic, partition, middle)
        if found and found.published_at >= cutoff:
            high = middle
        else:
            low = middle + 1
    stream, kept = scripts.stream_key(topic, partition), min(low, end)
    client.zremrangebyscore(scripts.erased_key(topic, partition), "-inf", f"({kept}")
    return cast(int, client.xtrim(stream, minid=entry_id(kept), approximate=False))


def snapshot(client: redis.Redis, topic: Topic) -> Iterator[Record]:
    """The last record of each key of a compacted topic."""
    for key, packed in client.hscan_iter(scripts.latest_key(topic.name), count=PAGE_RECORDS):
        partition, offset, ms, value = packed.split(b":", 3)
        yield Record(topic.name, int(partition), int(offset), key.decode(), value, _moment(ms))


def tail(client: redis.Redis, topic: Topic, position: Mapping[int, int]) -> Iterator[Record | None]:
    """Every record from a position on; None after each quiet BLOCK_MS."""
    following = {(topic.name, p): n for p, n in position.items()}
    while True:
        quiet = True
        for record in read_streams(client, following, count=PAGE_RECORDS, block_ms=BLOCK_MS):
            quiet = False
            following[topic.name, record.partition] = record.offset + 1
            yield record
        if quiet:
            yield None
