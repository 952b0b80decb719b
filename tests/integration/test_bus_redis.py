import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from feedrank_core.contracts.topics import (
    ITEMS,
    MODEL_DELTAS,
    USERS,
    VERDICTS,
    Topic,
    with_dead_letters,
)
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing, TopicMismatchError
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.bus_redis_streams import trim_stream
from feedrank_core.runtime.valkey import Role
from integration.bus_contract import (
    LEASE_S,
    BusContract,
    Drop,
    Outage,
    outgoing,
    read,
    until_caught_up,
)

LATER = timedelta(days=8)


class TestRedisBus(BusContract):
    @pytest.fixture
    def bus(self, bus_url: str) -> Iterator[RedisBus]:
        bus = RedisBus(bus_url, lease_s=LEASE_S)
        yield bus
        bus.close()

    @pytest.fixture
    def outage(self, bus_server: Any) -> Outage:
        return bus_server.hang

    @pytest.fixture
    def drop(self, bus: RedisBus) -> Drop:
        def drop(topic: Topic, end: int) -> None:
            cutoff = datetime.now(UTC) + LATER
            for partition in range(topic.partitions):
                trim_stream(bus._client, topic.name, partition, end, cutoff)

        return drop

    def test_another_number_of_partitions_is_an_error_that_names_both(
        self, bus: RedisBus, bus_url: str
    ) -> None:
        with redis.Redis.from_url(bus_url) as client:
            client.hset("topics", VERDICTS.name, "3")
        with pytest.raises(TopicMismatchError, match=r"verdicts has 3 .* contracts say 1"):
            bus.create_topics()

    def test_trimming_stays_behind_the_groups_that_are_waited_for(self, bus: RedisBus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(10))
        later, both = datetime.now(UTC) + LATER, ("sink", "other")
        assert bus.trim(VERDICTS, now=later, behind=both) == 0
        for group, num_records in (("sink", 8), ("other", 6)):
            with bus.consumer([VERDICTS], group=group, member="a") as reader:
                reader.commit(reader.poll(max_records=num_records, timeout_s=1)[:num_records])
        assert bus.trim(VERDICTS, now=datetime.now(UTC), behind=both) == 0
        assert bus.trim(VERDICTS, now=later, behind=both) == 6
        bus.publisher().publish(VERDICTS, outgoing(1))
        found = until_caught_up(bus.broadcast(VERDICTS))
        assert [r.offset for r in found] == [6, 7, 8, 9, 10]
        assert bus.trim(VERDICTS, now=later, behind=()) == 5
        bus.publisher().publish(VERDICTS, outgoing(1))
        assert [r.offset for r in until_caught_up(bus.broadcast(VERDICTS))] == [11]

    def test_trimming_goes_by_the_age_of_each_record(self, bus: RedisBus, bus_url: str) -> None:
        with redis.Redis.from_url(bus_url) as client:
            seconds, _ = client.time()  # pyright: ignore[reportGeneralTypeIssues]
            for number in range(6):
                fields = {"k": "a", "t": (seconds + number) * 1000, "v": "1"}
                client.xadd("s:model-deltas:0", fields, id=f"{number + 1}-0")  # pyright: ignore[reportArgumentType]
            client.set("n:model-deltas:0", 6)
        middle = datetime.fromtimestamp(seconds + 3, UTC) + MODEL_DELTAS.retention
        assert bus.trim(MODEL_DELTAS, now=middle, behind=()) == 3
        assert bus.trim(MODEL_DELTAS, now=middle, behind=()) == 0

    @pytest.mark.parametrize("num_read", [1, 2])
    def test_offsets_trimmed_from_a_compacted_topic_mean_its_last_records(
        self, bus: RedisBus, num_read: int
    ) -> None:
        bus.publisher().publish(ITEMS, [Outgoing("a", b"1"), Outgoing("a", b"2")])
        with bus.consumer([ITEMS], group="sink", member="a") as sink:
            sink.commit(sink.poll(max_records=9, timeout_s=1)[:num_read])
        assert bus.trim(ITEMS, now=datetime.now(UTC) + LATER, behind=["sink"]) == num_read
        offsets = dict.fromkeys(range(ITEMS.partitions), 0)
        (record,) = until_caught_up(bus.broadcast(ITEMS, offsets=offsets))
        assert record.value == b"2"

    def test_only_the_dead_letters_of_the_erased_reader_go(self, bus: RedisBus) -> None:
        theirs = [
            Outgoing("1", b"no JSON"),
            Outgoing("k1", b'{"user_id": "1", "unknown": 7}'),
            Outgoing("k2", b'{"user_id": "\\u0031"}'),
            Outgoing("k3", b'{"user_id": 1}'),
            Outgoing("k4", b'{"user_id": "a", "into": "1"}'),
            Outgoing("k5", b'[{"user_id": "1"}]'),
            Outgoing("k6", b'{"user_id": "1", "cut'),
            Outgoing("k7", b'{"user_id": "\\u0031", "cut'),
        ]
        others = [
            Outgoing("user-11", b'{"event_id": "e1", "user_id": "user-11", "cut'),
            Outgoing("bob", b'{"event_id": "1", "user_id": "bob", "dwell_s": "1"}'),
            Outgoing("deep", b"[" * 900 + b"1" + b"]" * 900),
        ]
        bus.publisher().publish(USERS, [*theirs, *others])
        with bus.consumer([USERS], group="g", member="a") as consumer:
            for record in read(consumer, len(theirs) + len(others)):
                consumer.dead_letter(record, "of no use")
        twin = with_dead_letters()[USERS.dlq]
        assert bus.erase(twin, "1", datetime.now(UTC), read=None) == (len(theirs), 0)
        left = until_caught_up(bus.broadcast(twin))
        assert {orjson.loads(r.value or b"")["key"] for r in left} == {o.key for o in others}


def test_a_killed_server_loses_no_acknowledged_record(tmp_path: Path, make_server: Any) -> None:
    server = make_server(Role.BUS, tmp_path)
    server.start()
    try:
        bus = RedisBus(server.url, lease_s=LEASE_S)
        publisher = bus.publisher()
        for start in range(0, 2000, 100):
            publisher.publish(VERDICTS, outgoing(2000)[start : start + 100])
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.commit(consumer.poll(max_records=50, timeout_s=1))
        server.kill()
        start_s = time.monotonic()
        with pytest.raises(BusUnavailableError, match=str(server.port)):
            bus.ping()
        assert time.monotonic() - start_s < 1.5
        server.start()
        wait_for(bus)
        assert bus.end_offsets(VERDICTS) == {0: 2000}
        with bus.consumer([VERDICTS], group="g", member="b") as consumer:
            assert [r.offset for r in read(consumer, 1950)] == list(range(50, 2000))
        publisher.publish(VERDICTS, outgoing(1))
        assert bus.end_offsets(VERDICTS) == {0: 2001}
        publisher.close()
        bus.close()
    finally:
        server.stop()


def wait_for(bus: RedisBus) -> None:
    for _ in range(100):
        try:
            return bus.ping()
        except BusUnavailableError:
            time.sleep(0.05)
    raise AssertionError("the server did not come back")


def test_erased_records_are_in_no_stream_and_not_in_the_servers_file(
    tmp_path: Path, make_server: Any
) -> None:
    server = make_server(Role.BUS, tmp_path)
    server.start()
    try:
        bus, at = RedisBus(server.url, lease_s=LEASE_S), datetime(2026, 1, 1, tzinfo=UTC)
        publisher = bus.publisher()

        def record(user: str, accepted_at: datetime, value: str = "body") -> Outgoing:
            body = {"accepted_at": accepted_at.isoformat(), "of": f"{value}-{user}"}
            return Outgoing(user, orjson.dumps(body))

        old = [record("needle", at), record("other", at)] * 700
        publisher.publish(USERS, [*old, record("needle", at + LATER, "new")])
        with bus.consumer([USERS], group="g", member="a") as consumer:
            (read_,) = consumer.poll(max_records=1, timeout_s=1)
            consumer.dead_letter(read_, "of no use")
        twin = with_dead_letters()[USERS.dlq]
        assert bus.erase(USERS, "needle", at, read=None) == (700, 0)
        assert bus.erase(twin, read_.key, datetime.now(UTC), read=None) == (1, 0)
        assert bus.begin_rewrite()
        while bus.is_rewriting():
            time.sleep(0.02)
        with bus.consumer([USERS], group="h", member="a") as consumer:
            found = read(consumer, 701)
            assert [r.key for r in found].count("needle") == 1
            consumer.commit(found)
            unread = dict.fromkeys(range(USERS.partitions), 0)
            assert bus.erase(USERS, "needle", at + LATER, read=unread) == (0, 1)
            assert bus.erase(USERS, "needle", at + LATER, read=None) == (1, 0)
            assert sum(consumer.lag().values()) == 0
        kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*.aof"))
        assert b"body-other" in kept
        assert b"body-needle" not in kept
        publisher.close()
        bus.close()
    finally:
        server.stop()


READER = """
import sys, time
from feedrank_core.contracts.topics import VERDICTS
from feedrank_core.runtime.bus_redis import RedisBus
with RedisBus(sys.argv[1]).consumer([VERDICTS], group="g", member="a") as consumer:
    print(len(consumer.poll(max_records=9, timeout_s=10)), flush=True)
    time.sleep(600)
"""


def test_who_starts_in_a_killed_reader_s_place_need_not_wait_for_its_lease(bus_url: str) -> None:
    bus = RedisBus(bus_url, lease_s=3600)
    publisher = bus.publisher()
    publisher.publish(VERDICTS, outgoing(3))
    with subprocess.Popen(
        [sys.executable, "-c", READER, bus_url], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "3\n"
        with bus.consumer([VERDICTS], group="g", member="b") as early:
            assert early.poll(max_records=9, timeout_s=0.3) == []
            killed.kill()
            killed.wait()
            assert len(read(early, 3)) == 3
    publisher.close()
    bus.close()
