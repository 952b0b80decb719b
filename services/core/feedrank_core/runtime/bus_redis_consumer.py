"""A member of a group on the Redis bus: leases partitions, reads them, commits prefixes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime import bus_redis_scripts as scripts
from feedrank_core.runtime.bus import LeaseLostError, Publisher, Record
from feedrank_core.runtime.bus_redis_members import is_of_a_dead_process, token_of
from feedrank_core.runtime.bus_redis_streams import BLOCK_MS, offset_of, read_streams, translated
from feedrank_core.runtime.dead_letters import publish_dead_letter

WITHOUT_PARTITION_S = 0.1
"""How long a member that holds nothing waits before it asks for its share again."""
MIN_READ = 16
RENEWALS_A_LEASE = 10

Held = tuple[str, int]


class RedisConsumer:
    """Reads as one member of a group; see the port for what it guarantees."""

    def __init__(
        self,
        client: redis.Redis,
        publisher: Publisher,
        topics: Sequence[Topic],
        *,
        group: str,
        member: str,
        lease_s: float,
        url: str,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._topics = {t.name: t for t in topics}
        self._group = group
        self._member = member
        self._token = token_of(member)
        self._lease_s = lease_s
        self._url = url
        self._share = client.register_script(scripts.SHARE)
        self._commit = client.register_script(scripts.COMMIT)
        self._leave = client.register_script(scripts.LEAVE)
        self._following: dict[Held, int] = {}
        self._sought: dict[Held, int] = {}
        self._renewed_at = float("-inf")
        self._turn = 0

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` new records of the partitions held. Raises: BusUnavailableError."""
        deadline = time.monotonic() + timeout_s
        while True:
            with translated(self._url):
                self._renew()
                remaining_s = max(0.0, deadline - time.monotonic())
                records = self._read(max_records, remaining_s) if self._following else []
            if records or time.monotonic() >= deadline:
                return records
            if not self._following:
                time.sleep(min(WITHOUT_PARTITION_S, max(0.0, deadline - time.monotonic())))

    def commit(self, records: Sequence[Record]) -> None:
        """Store the position behind these records. Raises: LeaseLostError, BusUnavailableError."""
        following: dict[str, dict[int, int]] = {}
        for record in records:
            of_topic = following.setdefault(record.topic, {})
            offset = max(of_topic.get(record.partition, 0), record.offset + 1)
            of_topic[record.partition] = offset
        for topic, offsets in following.items():
            keys = [
                scripts.position_key(self._group, topic),
                *(scripts.lease_key(self._group, topic, p) for p in offsets),
            ]
            args: list[Any] = [self._token, *(n for pair in offsets.items() for n in pair)]
            with translated(self._url):
                lost = cast(list, self._commit(keys=keys, args=args))
            if lost:
                for partition in lost:
                    self._following.pop((topic, partition), None)
                self._renewed_at = float("-inf")
                raise LeaseLostError(
                    f"{self._member} of {self._group} no longer reads {topic}/{sorted(lost)}"
                )
            for partition, offset in offsets.items():
                if (topic, partition) in self._sought:
                    self._sought[topic, partition] = offset

    def dead_letter(self, record: Record, reason: str) -> None:
        """Publish the record to its topic's `-dlq` twin."""
        publish_dead_letter(self._publisher, record, reason, refused_by=self._group)

    def seek(self, partition: int, offset: int, *, topic: str) -> None:
        """Continue at `offset`, now and whenever the partition is held anew."""
        held = (topic, partition)
        self._sought[held] = offset
        if held in self._following:
            self._following[held] = offset

    def lag(self) -> Mapping[Held, int]:
        """Records not yet committed of the partitions held, without those that were dropped."""
        held = list(self._following)
        if not held:
            return {}
        with translated(self._url), self._client.pipeline(transaction=False) as pipeline:
            for topic, partition in held:
                stream = scripts.stream_key(topic, partition)
                pipeline.xrange(stream, count=1)
                # Not the next offset: the last records may have been erased.
                pipeline.xrevrange(stream, count=1)
                pipeline.hget(scripts.position_key(self._group, topic), str(partition))
            answers = pipeline.execute()
        found = zip(held, answers[::3], answers[1::3], answers[2::3], strict=True)
        return {key: _num_left(first, last, int(done or 0)) for key, first, last, done in found}

    def close(self) -> None:
        """Give the partitions up at once; a server that is gone forgets them by itself."""
        try:
            for topic in self._topics.values():
                self._leave(
                    keys=[scripts.members_key(self._group, topic.name), *self._leases(topic)],
                    args=[self._token],
                )
        except redis.RedisError:
            pass
        finally:
            self._following.clear()
            self._publisher.close()
            self._client.close()

    def _leases(self, topic: Topic) -> list[str]:
        return [scripts.lease_key(self._group, topic.name, p) for p in range(topic.partitions)]

    def _bury_the_dead(self, topic: Topic) -> None:
        """Give up, in their name, the leases of killed processes of this machine."""
        members = scripts.members_key(self._group, topic.name)
        for member in cast(list, self._client.zrange(members, 0, -1)):
            if is_of_a_dead_process(member.decode()):
                self._leave(keys=[members, *self._leases(topic)], args=[member])

    def _renew(self) -> None:
        now = time.monotonic()
        if self._following and now - self._renewed_at < self._lease_s / RENEWALS_A_LEASE:
            return
        held: dict[Held, int] = {}
        for topic in self._topics.values():
            if not self._following:
                self._bury_the_dead(topic)
            answer = self._share(
                keys=[
                    scripts.members_key(self._group, topic.name),
                    scripts.position_key(self._group, topic.name),
                    *self._leases(topic),
                ],
                args=[self._token, int(self._lease_s * 1000)],
            )
            for partition, is_new, stored in cast(list, answer):
                key = (topic.name, partition)
                known = None if is_new else self._following.get(key)
                held[key] = self._sought.get(key, int(stored)) if known is None else known
        self._following = held
        self._renewed_at = now

    def _read(self, max_records: int, remaining_s: float) -> list[Record]:
        """Partitions take turns at the front, so that a busy one never starves the others."""
        self._turn += 1
        first = self._turn % len(self._following)
        keys = list(self._following)
        turns = {k: self._following[k] for k in keys[first:] + keys[:first]}
        block_ms = min(BLOCK_MS, int(self._lease_s * 1000 / 3), int(remaining_s * 1000))
        found = read_streams(
            self._client,
            turns,
            count=min(max_records, max(MIN_READ, -(-max_records // len(keys)))),
            block_ms=max(1, block_ms),
        )
        records = list(found)[:max_records]
        for record in records:
            self._following[record.topic, record.partition] = record.offset + 1
        return records


def _num_left(first: list[Any], last: list[Any], done: int) -> int:
    """How many offsets lie behind a position, of a stream with these entries at its ends."""
    if not first or not last:
        return 0
    return max(0, offset_of(last[0][0]) + 1 - max(done, offset_of(first[0][0])))
