"""What the online store held at an instant is what training joins for that instant."""

import random
from datetime import timedelta

import duckdb
import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    HISTORY_LENGTH,
    USER_PROFILE_COLUMNS,
)
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.users import AgeBand, Platform, User
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from feedrank_feature_store.stream.inputs import microseconds
from feedrank_feature_store.stream.profile_state import Profile
from feedrank_feature_store.tables import write_features
from feedrank_trainer import labels
from stream_running import copy_to_lake, publish, started
from stream_world import START, an_item

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 60, 40, 6_000


def accepted_in_order(rng: random.Random):
    """A log as an intake stamps it: what happened long ago too, and items and readers corrected."""
    at = START
    for n in range(NUM_ITEMS):
        yield an_item(f"i{n}", at, rng)
    for n in range(NUM_EVENTS):
        at += timedelta(microseconds=rng.randrange(1, 5 * 10**8))
        if rng.random() < 0.03:
            yield an_item(f"i{rng.randrange(NUM_ITEMS)}", at, rng)
        elif rng.random() < 0.03:
            user = f"u{rng.randrange(NUM_USERS)}"
            yield User(
                user_id=user,
                country=rng.choice(["NL", "DE"]),
                age_band=rng.choice(list(AgeBand)),
                platform=rng.choice(list(Platform)),
                interests=tuple(rng.sample(["music", "news", "sport"], rng.randrange(4))),
                accepted_at=at,
            )
        action = rng.choice(list(InteractionType))
        yield Interaction(
            event_id=f"e{n}",
            event_type=action,
            user_id=f"u{rng.randrange(NUM_USERS)}",
            item_id=f"i{rng.randrange(NUM_ITEMS)}",
            dwell_s=rng.uniform(0, 40) if action is InteractionType.VIEW else None,
            occurred_at=at - timedelta(days=rng.choice([0, 0, 30, 365])),
            accepted_at=at,
        )


@pytest.fixture
def recorded(tmp_path, cache_url):
    """Serve a log a few events at a time; what each reader had online when an action came."""
    bus, online, records = MemoryBus(), MemoryOnline(), {}
    bus.create_topics()
    rng = random.Random(9)
    log = list(accepted_in_order(rng))
    with (
        sync_client(cache_url) as cache,
        started(tmp_path, bus, cache, online) as running,
    ):
        start = 0
        while start < len(log):
            few = log[start : start + rng.randrange(1, 12)]
            start += len(few)
            # Backwards, so that of what a reader sends in one go the first is kept: what comes
            # after it finds online less than its past.
            first = {m.user_id: m for m in reversed(few) if not isinstance(m, Item)}
            for user, message in first.items():
                if isinstance(message, Interaction):
                    records[user, message.accepted_at] = dict(online.read(user))
            publish(bus, *few)
            assert running.follower.step() == len(few)
            running.show()
    copy_to_lake(bus, Lake(tmp_path / "lake"))
    return records


def test_thousands_of_recorded_reads_equal_the_join_of_training(tmp_path, recorded, monkeypatch):
    # The trainer asks for some of the counters; here its query is asked for all.
    monkeypatch.setattr(labels, "USER_DENSE", COUNTER_COLUMNS)
    as_of = START + timedelta(days=10_000)
    with DuckDbEngine(Lake(tmp_path / "lake").connect(as_of), tmp_path / "scratch") as engine:
        write_features(engine, tmp_path / "features", as_of)
    compared = 0
    for then, history in joined(tmp_path / "features", as_of):
        held = recorded.get((then["user_id"], then["at"]))
        if held is not None:
            assert_was_online(held, then, history)
            compared += 1
    assert compared > 3_000


def joined(features, as_of):
    """Each label as the trainer reads it, with the reader's actions from strictly before it."""
    with duckdb.connect() as connection:
        batches = labels.labelled_actions(features, as_of=as_of, connection=connection, rows=1000)
        rows = [row for batch in batches for row in batch.to_pylist()]
    before: dict[str, list] = {}
    for row in rows:
        history = before.setdefault(row["user_id"], [])
        yield row, history[-HISTORY_LENGTH:]
        history.append((row["item_key"], row["action"], row["at"]))


def assert_was_online(held: dict, then: dict, history: list) -> None:
    unknown = Profile("")
    for name in USER_PROFILE_COLUMNS:
        # Before a reader's first profile the join has none, which the encoder reads as unknown.
        missing = getattr(unknown, name)
        assert tuple(held.get(name, missing)) == tuple(then[name] or missing)
    if then["counted_at"] is None:
        assert "counted_at_us" not in held and not history
        return
    assert held["counted_at_us"] == microseconds(then["counted_at"])
    counted = [held[name] for name in COUNTER_COLUMNS]
    assert counted == pytest.approx([then[n] for n in COUNTER_COLUMNS], rel=1e-6, abs=1e-9)
    names = ("hist_item_key", "hist_action", "hist_at")
    assert list(zip(*(held[name] for name in names), strict=True)) == history
