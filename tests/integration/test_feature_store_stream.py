"""The stream as a whole: bus, state, cache and online store, through replays, stops and flushes."""

import random
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import numpy as np
import orjson
import pytest
from feedrank_core.contracts.events import Impression, Interaction, InteractionType
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.redis_keys import (
    FOLLOWED,
    HIDDEN,
    SEEN,
    SEGMENT,
    TRENDING,
    TRENDING_EVERYONE,
)
from feedrank_core.contracts.signals import ItemStats
from feedrank_core.contracts.topics import (
    IMPRESSIONS,
    INTERACTIONS,
    ITEM_STATS,
    ITEMS,
    USERS,
    with_dead_letters,
)
from feedrank_core.contracts.users import Platform, User
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.consumer import GROUP, ReplacedBusError
from feedrank_feature_store.stream.inputs import FOLDED
from stream_checks import assert_shown
from stream_running import copy_to_lake, publish
from stream_world import an_item, drawn_log

NOW = datetime.now(UTC)


@pytest.fixture
def cache(cache_url):
    with sync_client(cache_url, timeout_s=0.5) as client:
        yield client


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def impression(item_id: str, user: str = "u", at: datetime = NOW) -> Impression:
    return Impression(
        event_id=f"shown-{user}-{item_id}",
        user_id=user,
        item_id=item_id,
        occurred_at=at,
        accepted_at=at,
    )


def action(kind: InteractionType, item_id: str, user: str = "u", at: datetime = NOW) -> Interaction:
    return Interaction(
        event_id=f"{kind}-{user}-{item_id}",
        event_type=kind,
        user_id=user,
        item_id=item_id,
        occurred_at=at,
        accepted_at=at,
    )


def item(item_id: str, creator: str = "c", **changed) -> Item:
    made = an_item(item_id, NOW, random.Random(0))
    return made.model_copy(update={"creator_id": creator, "active": True} | changed)


def keys_in(cache, name: str) -> list[int]:
    return np.frombuffer(cache.get(name) or b"", "<i8").tolist()


def keys_of(*item_ids: str) -> list[int]:
    return [item_key(i) for i in item_ids]


def test_what_is_folded_is_shown_online_and_in_the_cache(started, bus, cache, online):
    acts = [
        item("a", "anna"),
        item("b", "bert"),
        User(user_id="u", country="NL", platform=Platform.WEB, accepted_at=NOW),
        *(impression(i) for i in "ab"),
        action(InteractionType.FOLLOW, "b"),
        action(InteractionType.FOLLOW, "a"),
        action(InteractionType.HIDE, "b"),
        action(InteractionType.LIKE, "a"),
    ]
    publish(bus, *acts)
    with started() as running:
        running.fold()
        running.show()
    assert_shown(online, acts)
    assert online.read("u")["country"] == "NL"
    assert online.read("u")["top_creators"][0] == "anna"
    assert sorted(keys_in(cache, SEEN.key(user="u"))) == sorted(keys_of("a", "b"))
    assert keys_in(cache, HIDDEN.key(user="u")) == keys_of("b")
    assert orjson.loads(cache.get(FOLLOWED.key(user="u"))) == ["bert", "anna"]
    assert cache.get(SEGMENT.key(user="u")) == b"NL|web"


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_place_counts_nothing_twice(started, bus, online, seed):
    rng = random.Random(seed)
    log, start = drawn_log(rng, 800), 0
    while start < len(log):
        end = start + rng.randrange(1, 150)
        publish(bus, *log[start:end])
        start = end
        with started() as running:
            running.follower._max_records = rng.randrange(1, 40)
            for _ in range(rng.randrange(1, 8)):
                running.follower.step()
                if rng.random() < 0.3:
                    running.follower.save()
                if rng.random() < 0.3:
                    running.writer.step()
    with started() as running:
        running.fold()
        running.show()
    assert_shown(online, log)


def test_marks_outlive_a_kill_between_saving_and_showing(started, bus, online):
    publish(bus, impression("a"))
    with started() as running:
        running.fold()
        running.follower.save()
    assert online.held == {}
    with started() as running:
        running.show()
    assert_shown(online, [impression("a")])


def test_a_flushed_cache_is_filled_again_from_the_state(started, bus, cache, online):
    acts = [impression(i, user) for i in "ab" for user in ("u", "v")]
    publish(bus, item("a"), *acts, action(InteractionType.HIDE, "a"))
    publish(bus, User(user_id="w", country="DE", platform=Platform.TV, accepted_at=NOW))
    with started() as running:
        running.fold()
        running.follower.save()
        running.show()
        before = {name: cache.get(name) for name in cache.scan_iter()}
        assert len(before) == 5
        cache.flushall()
        online.held.clear()
        running.check_cache()
        assert {name: cache.get(name) for name in cache.scan_iter()} == before
    assert_shown(online, [*acts, action(InteractionType.HIDE, "a")])
    assert online.read("w")["country"] == "DE"


def test_while_the_cache_is_away_events_are_folded_and_later_shown(
    started, bus, cache, cache_server, online
):
    publish(bus, impression("a"))
    with started() as running:
        running.writer.step()
        stopping = Event()
        with cache_server.hang():
            thread = Thread(target=running.writer.run, args=(stopping,))
            thread.start()
            running.fold()
            running.follower.save()
            while running.writer.trouble != "the cache does not answer":
                thread.join(timeout=0.01)
                assert thread.is_alive()
            assert sum(bus.committed(IMPRESSIONS, group=GROUP).values()) == 1
        while not cache.exists(SEEN.key(user="u")):
            thread.join(timeout=0.01)
            assert thread.is_alive()
        stopping.set()
        thread.join()
    assert keys_in(cache, SEEN.key(user="u")) == keys_of("a")


def test_records_that_are_no_messages_are_dead_lettered_and_the_rest_kept(started, bus, online):
    broken = Outgoing("u", b'{"user_id": "u", "country": "Narnia"}')
    publisher = bus.publisher()
    for topic in (IMPRESSIONS, INTERACTIONS, ITEMS):
        publisher.publish(topic, [Outgoing("u", b"{}")])
    publisher.publish(USERS, [broken])
    publish(bus, impression("b"))
    with started() as running:
        running.fold()
        running.show()
    assert_shown(online, [impression("b")])
    twins = with_dead_letters()
    for topic in FOLDED:
        assert bus.end_offsets(twins[topic.dlq]) == {0: 1}


def test_a_withdrawn_profile_leaves_no_segment(started, bus, cache, online):
    publish(bus, User(user_id="u", country="NL", platform=Platform.WEB, accepted_at=NOW))
    with started() as running:
        running.fold()
        running.show()
        assert cache.get(SEGMENT.key(user="u")) == b"NL|web"
        publish(bus, impression("a"))
        bus.publisher().publish(USERS, [Outgoing("u", None)])
        running.fold()
        running.show()
        assert cache.get(SEGMENT.key(user="u")) is None
    assert online.read("u")["country"] == "unknown"


def imported(message) -> dict:
    return message.model_dump() | {"topic_partition": NOT_FROM_BUS}


def test_imports_are_followed_and_count_once(started, bus, online):
    acts = [impression("a"), action(InteractionType.LIKE, "a", user="v")]
    with started() as running:
        running.lake.append("items", [imported(item("a"))])
        running.lake.append("impressions", [imported(acts[0])])
        running.lake.append("interactions", [imported(acts[1])])
        running.imports()
        running.follower.save()
    with started() as running:
        running.imports()
        publish(bus, acts[0])
        running.fold()
        running.show()
    assert_shown(online, acts)
    assert online.read("v")["top_creators"] == ["c"]


def test_a_lost_state_is_built_from_the_lake_and_goes_on_from_the_bus(
    tmp_path, started, bus, online
):
    log = drawn_log(random.Random(5), 500)
    publish(bus, *log[:400])
    copy_to_lake(bus, Lake(tmp_path / "lake"))
    publish(bus, *log[400:])
    with started() as running:
        assert running.state.entries()["users"] > 0
        assert running.state.positions["interactions", 0] > 0
        running.fold()
        running.check_cache()
        running.follower.save()
    assert_shown(online, log)


def test_a_bus_that_ends_before_the_state_is_refused(started, bus):
    with started() as running:
        running.state.positions["interactions", 0] = 5
        with pytest.raises(ReplacedBusError, match="interactions/0 up to 5"):
            running.follower._resume()


def test_statistics_of_changed_items_are_published_once_each(started, bus):
    publish(bus, item("a"), impression("a"), impression("a", "v"), impression("b"))
    with started() as running:
        running.fold()
        while running.statistics.step():
            pass
        found = read_all(bus, ITEM_STATS)
        assert sorted(found) == ["a", "b"]
        stats = ItemStats.model_validate_json(found["a"])
        assert stats.counters["impressions_forever"] == 2.0
        assert running.statistics.step() == 0


def read_all(bus, topic) -> dict[str, bytes]:
    found = {}
    for record in bus.broadcast(topic):
        if record is None:
            return found
        found[record.key] = record.value
    return found


def test_trends_list_the_busiest_items_of_a_segment_that_may_be_shown(started, bus, cache):
    publish(bus, User(user_id="u", country="NL", platform=Platform.WEB, accepted_at=NOW))
    publish(bus, *(item(i) for i in "abc"), item("gone", active=False))
    publish(bus, *(action(InteractionType.LIKE, i) for i in ("a", "gone")))
    publish(bus, *(action(InteractionType.LIKE, "b", user) for user in ("v", "w")))
    publish(bus, action(InteractionType.CLICK, "c", "v", NOW - timedelta(days=30)))
    with started() as running:
        running.fold()
        running.follower.save()
        running.check_cache()
    assert keys_in(cache, TRENDING.key(segment=TRENDING_EVERYONE)) == keys_of("b", "a")
    assert keys_in(cache, TRENDING.key(segment="NL|web")) == keys_of("a")
