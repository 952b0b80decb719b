"""What readers have seen and their segments, kept by the stream and put back by the daily run."""

from datetime import UTC, datetime
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feedrank_core.contracts.events import Impression
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.redis_keys import SEEN, SEGMENT
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, USERS, Topic
from feedrank_core.contracts.users import Platform, User
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.consumer import GROUP, ReaderFollower
from feedrank_feature_store.seen import SeenWriter
from feedrank_feature_store.segments import SegmentWriter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = [IMPRESSIONS, INTERACTIONS, USERS]


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


def profile(country: str, platform: Platform) -> Outgoing:
    user = User(user_id="u", country=country, platform=platform, accepted_at=NOW)
    return Outgoing("u", user.model_dump_json().encode())


def segment_in(cache: redis.Redis, user: str) -> object:
    return cache.get(SEGMENT.key(user=user))


def new_follower(consumer, cache: redis.Redis) -> ReaderFollower:
    writers = SeenWriter(cache), SegmentWriter(cache)
    return ReaderFollower(consumer, *writers, Metrics("feature_store"), max_records=100)


def seen_by(cache: redis.Redis, user: str) -> list[int]:
    held = cache.get(SEEN.key(user=user))
    return np.frombuffer(held, dtype=np.int64).tolist() if isinstance(held, bytes) else []


def follow_until_committed(bus, cache, num_records: int, topic: Topic = IMPRESSIONS) -> None:
    """Run a follower until it has committed that many records of a topic, then stop it."""
    stopping = Event()
    with bus.consumer(TOPICS, group=GROUP, member="m") as consumer:
        follower = new_follower(consumer, cache)
        thread = Thread(target=follower.run, args=(stopping,))
        thread.start()
        while sum(bus.committed(topic, group=GROUP).values()) < num_records:
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
        follower = new_follower(consumer, cache)
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


def test_the_stream_keeps_the_segment_of_the_last_profile_and_forgets_a_withdrawn_one(bus, cache):
    publisher = bus.publisher()
    publisher.publish(USERS, [profile("NL", Platform.WEB), profile("DE", Platform.IOS)])
    follow_until_committed(bus, cache, 2, USERS)
    assert segment_in(cache, "u") == b"DE|ios"
    publisher.publish(USERS, [Outgoing("u", None)])
    follow_until_committed(bus, cache, 3, USERS)
    assert segment_in(cache, "u") is None


def test_a_profile_that_is_none_is_dead_lettered_and_the_rest_kept(bus, cache):
    broken = Outgoing("u", b'{"user_id": "u", "country": "Narnia"}')
    bus.publisher().publish(USERS, [profile("NL", Platform.WEB), broken])
    follow_until_committed(bus, cache, 2, USERS)
    assert segment_in(cache, "u") == b"NL|web"


def test_the_daily_run_puts_back_lost_segments_and_leaves_newer_ones(tmp_path, cache):
    users = tmp_path / "users.parquet"
    columns = {"user_id": ["u", "v"], "country": ["NL", "BE"], "platform": ["web", "tv"]}
    pq.write_table(pa.table(columns), users)
    writer = SegmentWriter(cache)
    newer = User(user_id="u", country="DE", platform=Platform.IOS, accepted_at=NOW)
    writer.put({"u": newer})
    writer.restore(users)
    assert (segment_in(cache, "u"), segment_in(cache, "v")) == (b"DE|ios", b"BE|tv")
    assert 0 < cache.ttl(SEGMENT.key(user="v")) <= (SEGMENT.ttl_s or 0)
