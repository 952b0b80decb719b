import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feedrank_core.contracts.topics import ITEMS, VERDICTS
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_redis import LAKE_SINK_GROUP, RedisBus
from feedrank_core.runtime.valkey import Role
from integration.bus_contract import LEASE_S, BusContract, Outage, outgoing, read, until_caught_up

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

    def test_trimming_stays_behind_the_lake_sink(self, bus: RedisBus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(10))
        later = datetime.now(UTC) + LATER
        assert bus.trim(VERDICTS, now=later) == 0
        with bus.consumer([VERDICTS], group=LAKE_SINK_GROUP, member="a") as sink:
            sink.commit(sink.poll(max_records=6, timeout_s=1)[:6])
        assert bus.trim(VERDICTS, now=datetime.now(UTC)) == 0
        assert bus.trim(VERDICTS, now=later) == 6
        bus.publisher().publish(VERDICTS, outgoing(1))
        found = until_caught_up(bus.broadcast(VERDICTS))
        assert [r.offset for r in found] == [6, 7, 8, 9, 10]

    def test_offsets_trimmed_from_a_compacted_topic_mean_its_last_records(
        self, bus: RedisBus
    ) -> None:
        bus.publisher().publish(ITEMS, [Outgoing("a", b"1")])
        with bus.consumer([ITEMS], group=LAKE_SINK_GROUP, member="a") as sink:
            read(sink, 1)
        bus.publisher().publish(ITEMS, [Outgoing("a", b"2")])
        assert bus.trim(ITEMS, now=datetime.now(UTC) + LATER) == 1
        offsets = dict.fromkeys(range(ITEMS.partitions), 0)
        (record,) = until_caught_up(bus.broadcast(ITEMS, offsets=offsets))
        assert record.value == b"2"


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
