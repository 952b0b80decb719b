"""What readers have seen, kept by the stream and put back by the daily run, on a real cache."""

from datetime import UTC, datetime
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feedrank_core.contracts.events import Impression
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.redis_keys import SEEN
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.consumer import GROUP, SeenFollower
from feedrank_feature_store.seen import SeenWriter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = [IMPRESSIONS, INTERACTIONS]


@pytest.fixture
def cache(cache_url):
    with sync_client(cache_url, timeout_s=0.5) as client:
        yield client


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def impression(item_id: str) -> Outgoing:
    event = Impression(
        event_id=f"event-{item_id}", user_id="u", item_id=item_id, occurred_at=NOW, accepted_at=NOW
    )
    return Outgoing("u", event.model_dump_json().encode())


def seen_by(cache: redis.Redis, user: str) -> list[int]:
    held = cache.get(SEEN.key(user=user))
    return np.frombuffer(held, dtype=np.int64).tolist() if isinstance(held, bytes) else []


def follow_until_committed(bus, cache, num_records: int) -> None:
    """Run a follower until it has committed that many impressions, then stop it."""
    stopping = Event()
    with bus.consumer(TOPICS, group=GROUP, member="m") as consumer:
        follower = SeenFollower(
            consumer, SeenWriter(cache), Metrics("feature_store"), max_records=100
        )
        thread = Thread(target=follower.run, args=(stopping,))
        thread.start()
        while sum(bus.committed(IMPRESSIONS, group=GROUP).values()) < num_records:
            thread.join(timeout=0.01)
            assert thread.is_alive()
        stopping.set()
        thread.join()


def test_the_stream_keeps_what_was_seen_in_order(bus, cache):
    bus.publisher().publish(IMPRESSIONS, [impression("a"), impression("b")])
    follow_until_committed(bus, cache, 2)
    assert seen_by(cache, "u") == [item_key("a"), item_key("b")]


def test_a_record_that_is_no_event_is_dead_lettered_and_the_rest_kept(bus, cache):
    bus.publisher().publish(IMPRESSIONS, [Outgoing("u", b"{}"), impression("b")])
    follow_until_committed(bus, cache, 2)
    assert seen_by(cache, "u") == [item_key("b")]


def test_a_replay_changes_nothing(cache):
    writer = SeenWriter(cache)
    writer.extend({"u": [1, 2, 3]})
    writer.extend({"u": [1, 2, 3]})
    assert seen_by(cache, "u") == [1, 2, 3]


def test_nothing_is_committed_while_the_cache_is_away(bus, cache_server, cache):
    bus.publisher().publish(IMPRESSIONS, [impression("a")])
    stopping = Event()
    with cache_server.hang(), bus.consumer(TOPICS, group=GROUP, member="m") as consumer:
        follower = SeenFollower(
            consumer, SeenWriter(cache), Metrics("feature_store"), max_records=100
        )
        thread = Thread(target=follower.run, args=(stopping,))
        thread.start()
        while follower.trouble != "the cache does not answer":
            thread.join(timeout=0.01)
            assert thread.is_alive()
        stopping.set()
        thread.join()
        assert sum(bus.committed(IMPRESSIONS, group=GROUP).values()) == 0
    follow_until_committed(bus, cache, 1)
    assert seen_by(cache, "u") == [item_key("a")]


def test_the_daily_run_puts_back_what_a_flush_lost_under_what_came_since(tmp_path, cache):
    users = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": ["u", "v"], "seen": [[1, 2], []]}), users)
    writer = SeenWriter(cache)
    writer.extend({"u": [2, 9]})
    assert writer.rewrite(users) == 1
    assert seen_by(cache, "u") == [1, 2, 9]
    cache.flushall()
    writer.rewrite(users)
    assert seen_by(cache, "u") == [1, 2]
    assert seen_by(cache, "v") == []
