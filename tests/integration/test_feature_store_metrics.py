"""What the stream says of itself is what was done: lag, throughput and freshness of known loads."""

from datetime import UTC, datetime, timedelta

import pytest
from feedrank_core.contracts.events import Impression
from feedrank_core.contracts.users import User
from feedrank_core.runtime.bus_memory import MemoryBus
from stream_running import Running, publish

AGES_S = {"ada": 30.0, "bob": 600.0}
"""By reader, how long ago the first event was accepted that is not shown yet."""


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def load(now: datetime) -> list[Impression | User]:
    """Of each reader three impressions a second apart, and one profile."""
    events = [
        Impression(
            event_id=f"{user}-{n}-{now.isoformat()}", user_id=user, item_id="i",
            occurred_at=at, accepted_at=at,
        )
        for user, age_s in AGES_S.items()
        for n in range(3)
        for at in [now - timedelta(seconds=age_s - n)]
    ]  # fmt: skip
    return [*events, User(user_id="ada", country="NL", accepted_at=now)]


def value(running: Running, name: str, **labels: str) -> float:
    registry = running.follower._metrics.registry
    found = registry.get_sample_value(f"feedrank_feature_store_{name}", labels)
    return 0.0 if found is None else found


def measure(running: Running) -> None:
    running.follower._measured_at = float("-inf")
    running.follower.step()


def test_lag_throughput_and_freshness_are_those_of_the_load(started, bus):
    with started() as running:
        for round_ in (1, 2):
            began = datetime.now(UTC)
            publish(bus, *load(began))
            running.follower._max_records = 1
            measure(running)
            assert value(running, "lag_records") == 7
            running.fold()
            measure(running)
            assert value(running, "lag_records") == 0
            assert value(running, "events_total", topic="impressions") == 6 * round_
            assert value(running, "events_total", topic="users") == round_
            assert value(running, "events_total", topic="interactions") == 0
            assert value(running, "waiting_readers") == len(AGES_S)
            shown, since = value(running, "freshness_seconds_sum"), seconds_since(began)
            running.show()
            fresh_s = value(running, "freshness_seconds_sum") - shown - sum(AGES_S.values())
            assert len(AGES_S) * since <= fresh_s <= len(AGES_S) * seconds_since(began)
            assert value(running, "freshness_seconds_count") == len(AGES_S) * round_


def test_how_far_it_is_behind_is_the_age_of_what_it_folds(started, bus, monkeypatch):
    published_at = datetime.now(UTC) - timedelta(hours=1)
    publish(bus, *load(datetime.now(UTC)))
    with started() as running:
        poll = running.follower._consumer.poll

        def old(**asked):
            return [r._replace(published_at=published_at) for r in poll(**asked)]

        monkeypatch.setattr(running.follower._consumer, "poll", old)
        running.fold()
        assert 3600 <= value(running, "behind_seconds") <= seconds_since(published_at)


def seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
