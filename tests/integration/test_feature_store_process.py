"""`python -m feedrank_feature_store serve` as a process: killed under load, read through Feast."""

import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from feedrank_core.contracts.features import COUNTER_COLUMNS
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.redis_keys import HIDDEN, SEEN
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.consumer import GROUP
from feedrank_feature_store.stream.inputs import FOLDED, microseconds
from feedrank_feature_store.stream.state import State
from integration.conftest import free_port
from stream_checks import (
    HIDING,
    are_statistics_of,
    assert_equals,
    assert_lists_equal,
    item_keys,
    listed,
    seen_by,
)
from stream_world import TOPIC_OF, as_columns, drawn_log, plainly

TIMEOUT_S = 180
KILLS = 5


class Service:
    """The service over one home, started and killed by the test."""

    def __init__(self, home, bus_url: str, cache_url: str) -> None:
        self.home, self.port = home, free_port()
        self._environment = os.environ | {
            "FEEDRANK_HOME": str(home),
            "FEEDRANK_BUS_URL": bus_url,
            "FEEDRANK_CACHE_URL": cache_url,
            "FEEDRANK_FEATURE_STORE_PORT": str(self.port),
            "FEEDRANK_FEATURE_STORE_CHECKPOINT_S": "0.2",
            "FEEDRANK_FEATURE_STORE_ITEM_STATS_EVERY_S": "0.05",
            "FEEDRANK_FEATURE_STORE_MAX_RECORDS": "50",
        }

    @contextmanager
    def running(self):
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "feedrank_feature_store", "serve"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
            assert process.poll() in (None, 0, -signal.SIGKILL), self.log()
        finally:
            process.kill()
            process.wait()

    def log(self) -> str:
        return (self.home / "log").read_text()[-3000:]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


def wait_until(done, process, service: Service) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert process.poll() is None and time.monotonic() < deadline, service.log()
        time.sleep(0.02)


@pytest.fixture
def service(tmp_path, bus_url, cache_url):
    return Service(tmp_path, bus_url, cache_url)


@pytest.fixture
def bus(bus_url):
    bus = RedisBus(bus_url)
    yield bus
    bus.close()


def publish(bus, messages) -> None:
    publisher = bus.publisher()
    for message in messages:
        key = message.item_id if isinstance(message, Item) else message.user_id
        topic = TOPIC_OF[type(message)]
        publisher.publish(topic, [Outgoing(key, message.model_dump_json().encode())])
    publisher.close()


def lag(bus) -> int:
    return sum(
        sum(bus.end_offsets(topic).values()) - sum(bus.committed(topic, group=GROUP).values())
        for topic in FOLDED
    )


def read_online(store, users: list[str]) -> dict[str, dict]:
    """Each reader's features as Feast's SDK reads them."""
    names = [f"user_counters:{name}" for name in (*COUNTER_COLUMNS, "counted_at_us")]
    names += [f"user_history:{name}" for name in ("hist_item_key", "hist_action", "top_creators")]
    names += ["user_profile:country", "user_profile:interests"]
    answer = store.get_online_features(
        features=names, entity_rows=[{"user_id": user} for user in users]
    ).to_dict()
    by_user = zip(*answer.values(), strict=True)
    return {row["user_id"]: row for row in (dict(zip(answer, r, strict=True)) for r in by_user)}


def shown(store, plain) -> bool:
    found = read_online(store, list(plain.users))
    return all(
        row["impressions_forever"] is not None
        and [row[n] for n in COUNTER_COLUMNS] == pytest.approx(as_columns(plain.users[u]))
        for u, row in found.items()
    )


def assert_online(store, plain) -> None:
    for user, row in read_online(store, list(plain.users)).items():
        counted = plain.users[user]
        assert counted.at is not None
        wanted = as_columns(counted)
        assert [row[n] for n in COUNTER_COLUMNS] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        history = plain.histories.get(user, [])
        assert row["hist_item_key"] == [key for _, key, _ in history]
        assert row["hist_action"] == [action for *_, action in history]
        assert row["counted_at_us"] == microseconds(counted.at)
        assert row["country"] in ("NL", "unknown")


def keys_in(cache, name: str) -> list[int]:
    return item_keys(cache.get(name))


def assert_lists_shown(cache_url, log) -> None:
    with sync_client(cache_url) as cache:
        for user in plainly(log).users:
            assert set(keys_in(cache, SEEN.key(user=user))) == seen_by(log, user)
            assert keys_in(cache, HIDDEN.key(user=user)) == listed(log, user, HIDING)


@pytest.mark.long
def test_kills_at_random_points_under_load_count_every_event_once_and_show_it(
    service, bus, cache_url, feast_store
):
    rng = random.Random(11)
    log = drawn_log(rng, 6_000, num_users=40, num_items=60)
    share = len(log) // KILLS
    for n in range(KILLS):
        with service.running() as process:
            # Ready to show too: until then a kill finds nothing half shown.
            wait_until(service.is_ready, process, service)
            before = lag(bus)
            publish(bus, log[n * share : (n + 1) * share])
            # Killed once a part of the load is saved: in the middle of folding the rest.
            wanted = before + share * rng.random()
            wait_until(lambda most=wanted: lag(bus) <= most, process, service)
            process.kill()
            process.wait()
    plain = plainly(log)
    with service.running() as process:
        wait_until(lambda: lag(bus) == 0, process, service)
        wait_until(service.is_ready, process, service)
        store = feast_store.open_store(service.home, cache_url)
        wait_until(lambda: shown(store, plain), process, service)
        wait_until(lambda: are_statistics_of(bus, log), process, service)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0, service.log()
    state = State(service.home / "stream", read_only=True)
    assert state.entries() == {"users": len(plain.users), "items": len(plain.items)}
    assert_equals(state, plain)
    assert_lists_equal(state, log)
    state.close()
    assert_online(store, plain)
    assert_lists_shown(cache_url, log)


def test_feast_reads_online_what_the_log_adds_up_to_also_after_a_flush(
    service, bus, cache_url, feast_store
):
    log = drawn_log(random.Random(3), 1_500)
    plain = plainly(log)
    with service.running() as process:
        publish(bus, log)
        wait_until(service.is_ready, process, service)
        store = feast_store.open_store(service.home, cache_url)
        wait_until(lambda: shown(store, plain), process, service)
        assert_online(store, plain)
        with sync_client(cache_url) as cache:
            cache.flushall()
        wait_until(lambda: shown(store, plain), process, service)


def test_a_second_process_stands_by_and_takes_over(service, bus, bus_url, cache_url):
    second = Service(service.home, bus_url, cache_url)
    with service.running() as one, second.running() as other:
        wait_until(lambda: service.is_ready() or second.is_ready(), one, service)
        leader, (standby, follower) = (one, (other, second))
        if second.is_ready():
            leader, (standby, follower) = (other, (one, service))
        assert not follower.is_ready()
        leader.kill()
        wait_until(follower.is_ready, standby, follower)
        publish(bus, drawn_log(random.Random(4), 50))
        wait_until(lambda: lag(bus) == 0, standby, follower)


def test_every_topic_that_is_folded_names_this_service_as_reader():
    assert all("feature_store" in topic.readers for topic in FOLDED)
    assert {t.name for t in FOLDED} <= set(TOPICS)
