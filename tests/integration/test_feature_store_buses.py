"""The stream on each bus: killed processes, a commit that was never made, broken records."""

import random
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import pytest
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.redis_keys import SEEN
from feedrank_core.contracts.topics import (
    IMPRESSIONS,
    INTERACTIONS,
    USER_CHANGES,
    Topic,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.contracts.users import User
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_kafka import KafkaBus
from feedrank_core.runtime.bus_open import OpenBus, is_kafka
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics
from feedrank_feature_store.consumer import GROUP
from feedrank_feature_store.stream.inputs import FOLDED
from feedrank_ingestion.lake_sink import GROUP as SINK_GROUP
from feedrank_ingestion.lake_sink import SINK_TOPICS, LakeSink, missing
from integration.kafka_servers import TidyBus, expire
from processes import until
from stream_checks import (
    are_statistics_of,
    assert_equals,
    assert_lists_equal,
    assert_shown,
    item_keys,
    seen_by,
)
from stream_running import Running, carry_out, copy_to_lake, fold_until_killed, publish
from stream_world import drawn_log, plainly

KILLS = 2
SPAWN = get_context("spawn")


@pytest.fixture(params=["redis", "kafka"])
def stream_url(request: pytest.FixtureRequest) -> str:
    """Where an empty bus listens."""
    return request.getfixturevalue("kafka_url" if request.param == "kafka" else "bus_url")


@pytest.fixture
def bus(stream_url: str) -> Iterator[OpenBus]:
    bus = TidyBus(stream_url) if is_kafka(stream_url) else RedisBus(stream_url)
    bus.create_topics()
    until(lambda: knows_groups(bus))
    yield bus
    bus.close()


def num_held(bus: OpenBus) -> int:
    return sum(sum(bus.end_offsets(topic).values()) for topic in FOLDED)


def num_committed(bus: OpenBus) -> int:
    return sum(sum(bus.committed(topic, group=GROUP).values()) for topic in FOLDED)


def drop(bus: OpenBus, topic: Topic) -> None:
    """What the bus does once the topic's retention is over, whoever has not read it."""
    if isinstance(bus, KafkaBus):
        expire(bus, topic)
    else:
        assert isinstance(bus, RedisBus)
        bus.trim(topic, now=datetime.now(UTC) + topic.retention + timedelta(days=1), behind=())


def knows_groups(bus: OpenBus) -> bool:
    """A new broker needs a moment before it can say what a group has committed."""
    try:
        return num_committed(bus) == 0
    except BusUnavailableError:
        return False


def fold_all(running: Running) -> None:
    """Read to the end of the bus, which gives partitions out when it likes."""
    wanted = num_held(running.bus)

    def is_folded() -> bool:
        running.follower.step()
        return sum(running.state.positions.values()) == wanted

    until(is_folded)


def test_kills_while_it_folds_and_saves_count_every_event_once_show_it_and_tell_of_items(
    tmp_path, stream_url, bus, cache, cache_url, online, started
):
    rng = random.Random(5)
    log = drawn_log(rng, 900)
    share = len(log) // KILLS
    for n in range(KILLS):
        publish(bus, *log[n * share : (n + 1) * share])
        enough = num_committed(bus) + rng.randrange(1, share)
        stream = SPAWN.Process(target=fold_until_killed, args=(tmp_path, stream_url, cache_url))
        stream.start()
        until(lambda p=stream, least=enough: num_committed(bus) >= least or not p.is_alive())
        stream.kill()
        stream.join()
        assert stream.exitcode == -signal.SIGKILL
    with started() as running:
        fold_all(running)
        running.follower.save()
        running.show()
        assert_equals(running.state, plainly(log))
        assert_lists_equal(running.state, log)
        while running.statistics.step():
            pass
    assert are_statistics_of(bus, log)
    assert num_committed(bus) == num_held(bus)
    assert_shown(online, log)
    for user in plainly(log).users:
        assert set(item_keys(cache.get(SEEN.key(user=user)))) == seen_by(log, user)


def test_a_commit_that_a_kill_prevented_is_made_by_the_next_and_counts_nothing_twice(
    started, bus, online, monkeypatch
):
    log = drawn_log(random.Random(6), 60)
    publish(bus, *log)
    with started() as running, monkeypatch.context() as patched:

        def fail(*_):
            raise BusUnavailableError("away")

        fold_all(running)
        patched.setattr(running.follower._consumer, "commit", fail)
        with pytest.raises(BusUnavailableError):
            running.follower.save()
    assert num_committed(bus) == 0
    with started() as running:
        until(lambda: running.follower.step() == 0 and running.follower._last)
        running.follower.save()
        running.show()
    assert num_committed(bus) == num_held(bus)
    assert_shown(online, log)


def test_a_tail_that_the_bus_dropped_comes_from_the_lake_and_holds_no_order_up(
    tmp_path, started, bus
):
    log, lake = drawn_log(random.Random(8), 400), Lake(tmp_path / "lake")
    publish(bus, *log[:200])
    with started() as running:
        fold_all(running)
        running.follower.save()
    publish(bus, *log[200:])
    copy_to_lake(bus, lake)
    for topic in (IMPRESSIONS, INTERACTIONS):
        drop(bus, topic)
    carry_out(bus, lake, merge_of_nobody())
    with started() as running:
        until(lambda: running.follower.step() == 0 and order_is_committed(bus))
        assert_equals(running.state, plainly(log))


def test_a_tail_that_was_dropped_before_the_lake_had_it_holds_no_order_up(tmp_path, started, bus):
    log, lake = drawn_log(random.Random(8), 400), Lake(tmp_path / "lake")
    publish(bus, *log[:200])
    copy_to_lake(bus, lake)
    with started() as running:
        fold_all(running)
        running.follower.save()
    publish(bus, *log[200:])
    for topic in (IMPRESSIONS, INTERACTIONS):
        drop(bus, topic)
    sink = LakeSink(bus=bus, lake=lake, metrics=Metrics("ingestion"), max_rows=100, max_seconds=0.1)
    with bus.consumer(SINK_TOPICS, group=SINK_GROUP, member="m") as consumer:
        sink._resume(consumer)
        until(lambda: sink.step(consumer) == 0 and lake_has_all(lake, bus))
    carry_out(bus, lake, merge_of_nobody())
    with started() as running:
        until(lambda: running.follower.step() == 0 and order_is_committed(bus))
        described = [message for message in log[200:] if isinstance(message, Item | User)]
        assert_equals(running.state, plainly([*log[:200], *described]))


def lake_has_all(lake: Lake, bus: OpenBus) -> bool:
    return not any(missing(lake, topic, bus.end_offsets(topic)) for topic in FOLDED)


def merge_of_nobody() -> UserChange:
    return UserChange(
        change_id="1" * 32, kind=ChangeKind.MERGE, user_id="nobody", into="u1",
        accepted_at=datetime.now(UTC),
    )  # fmt: skip


def order_is_committed(bus: OpenBus) -> bool:
    return bus.committed(USER_CHANGES, group=GROUP) == {0: 1}


def test_records_that_are_no_messages_are_dead_lettered_and_the_rest_is_shown(started, bus, online):
    log, twins = drawn_log(random.Random(7), 60), with_dead_letters()
    publisher = bus.publisher()
    for topic in FOLDED:
        publisher.publish(topic, [Outgoing("u", b"{}")])
    publish(bus, *log)
    with started() as running:
        fold_all(running)
        running.show()
    assert_shown(online, log)
    assert all(sum(bus.end_offsets(twins[topic.dlq]).values()) == 1 for topic in FOLDED)
