"""The lake sink on the Redis bus, which drops nothing by itself: what goes, and what is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import redis
from feedrank_core.contracts.topics import (
    INTERACTIONS,
    ITEM_STATS,
    ITEMS,
    USER_CHANGES,
    Topic,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import ORDER_GROUPS
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.bus_redis_scripts import stream_key
from feedrank_core.runtime.bus_redis_streams import entry_id
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics
from feedrank_ingestion.lake_sink import GROUP, SINK_TOPICS, LakeSink
from integration.bus_contract import read, until_caught_up
from poison_events import EVENT

LATER = datetime.now(UTC) + timedelta(days=30)


def event(n: int) -> Outgoing:
    return Outgoing("u1", orjson.dumps(EVENT | {"event_id": f"e{n}"}))


def sink_over(bus: RedisBus, root: Path, now: datetime | None = None) -> LakeSink:
    return LakeSink(
        bus=bus,
        lake=Lake(root),
        metrics=Metrics("ingestion"),
        max_rows=100,
        max_seconds=0.3,
        clock=lambda: now or datetime.now(UTC),
    )


def step(bus: RedisBus, sink: LakeSink) -> int:
    with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
        sink._resume(consumer)
        return sink.step(consumer)


def test_every_topic_is_kept_for_its_retention_and_no_longer(
    bus: RedisBus, bus_url: str, tmp_path: Path
) -> None:
    topics = with_dead_letters()
    publisher = bus.publisher()
    for topic in topics.values():
        publisher.publish(topic, [Outgoing("k", b"%d" % n) for n in range(3)])

    def kept() -> dict[str, int]:
        client: Any = redis.Redis.from_url(bus_url)
        with client:
            streams = {name: client.keys(f"s:{name}:*") for name in topics}
            counts = {name: sum(map(client.xlen, of)) for name, of in streams.items()}
        return {name: count for name, count in counts.items() if count}

    while step(bus, sink_over(bus, tmp_path)):
        assert all(kept()[name] >= 3 for name in topics)
    step(bus, sink_over(bus, tmp_path, LATER))
    assert kept() == {USER_CHANGES.name: 3}
    for group in ORDER_GROUPS:
        with bus.consumer([USER_CHANGES], group=group, member="m") as consumer:
            read(consumer, 3)
    step(bus, sink_over(bus, tmp_path, LATER))
    assert kept() == {}
    for topic in (ITEMS, ITEM_STATS):
        assert [r.value for r in until_caught_up(bus.broadcast(topic))] == [b"2"]
    publisher.close()


def lost(sink: LakeSink, topic: Topic) -> float | None:
    labels = {"topic": topic.name}
    return sink._metrics.registry.get_sample_value("feedrank_ingestion_sink_lost_total", labels)


def test_what_an_erasure_took_is_no_loss_for_a_sink_over_an_older_lake(
    bus: RedisBus, bus_url: str, tmp_path: Path
) -> None:
    publisher = bus.publisher()
    publisher.publish(INTERACTIONS, [event(n) for n in range(5)])
    assert step(bus, sink_over(bus, tmp_path / "lake")) == 5
    assert bus.erase(INTERACTIONS, "u1", LATER, read=None) == (5, 0)
    publisher.publish(INTERACTIONS, [event(5)])
    restored = sink_over(bus, tmp_path / "restored")
    assert step(bus, restored) == 1
    assert lost(restored, INTERACTIONS) is None
    step(bus, sink_over(bus, tmp_path / "lake"))
    # What is past its retention is noted no longer, and lost for whoever lacks it.
    step(bus, sink_over(bus, tmp_path / "lake", LATER))
    with redis.Redis.from_url(bus_url) as client:
        assert client.keys("e:interactions:*") == []
    publisher.publish(INTERACTIONS, [event(6)])
    restored = sink_over(bus, tmp_path / "restored later")
    assert step(bus, restored) == 1
    assert lost(restored, INTERACTIONS) == 6
    publisher.close()


def test_what_the_bus_dropped_before_it_was_read_is_counted(
    bus: RedisBus, bus_url: str, tmp_path: Path
) -> None:
    publisher = bus.publisher()
    publisher.publish(INTERACTIONS, [event(n) for n in range(5)])
    assert step(bus, sink_over(bus, tmp_path)) == 5
    publisher.publish(INTERACTIONS, [event(n) for n in range(5, 15)])
    publisher.publish(ITEMS, [Outgoing("i1", b"of no use")] * 11)
    with redis.Redis.from_url(bus_url) as client:
        for topic in (INTERACTIONS, ITEMS):
            for partition in range(topic.partitions):
                stream = stream_key(topic.name, partition)
                client.xtrim(stream, minid=entry_id(10), approximate=False)
    sink = sink_over(bus, tmp_path)
    assert step(bus, sink) == 6
    assert lost(sink, INTERACTIONS) == 5
    # A version of an item that a later one has replaced is no loss.
    assert lost(sink, ITEMS) is None
    publisher.close()
