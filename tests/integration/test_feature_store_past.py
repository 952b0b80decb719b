"""What the online store held at an instant is what training joins for that instant."""

import random
from datetime import timedelta

import duckdb
import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.features import COUNTER_COLUMNS, HISTORY_LENGTH, Table
from feedrank_core.contracts.users import UNKNOWN, User
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from feedrank_feature_store.stream.inputs import microseconds
from feedrank_feature_store.tables import write_features
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
            yield User(user_id=user, country=rng.choice(["NL", "DE"]), accepted_at=at)
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
            # Backwards, so that of a reader's actions in one go the first is kept.
            by_reader = {m.user_id: m for m in reversed(few) if isinstance(m, Interaction)}
            records |= {m.event_id: dict(online.read(u)) for u, m in by_reader.items()}
            publish(bus, *few)
            assert running.follower.step() == len(few)
            running.show()
    copy_to_lake(bus, Lake(tmp_path / "lake"))
    return records


def test_thousands_of_recorded_reads_equal_the_join_of_training(tmp_path, recorded):
    as_of = START + timedelta(days=10_000)
    connection = Lake(tmp_path / "lake").connect(as_of)
    with DuckDbEngine(connection, tmp_path / "scratch") as engine:
        write_features(engine, tmp_path / "features", as_of)
    joined = [row for row in join(tmp_path / "features") if row["event_id"] in recorded]
    assert len(joined) > 3_000
    for then in joined:
        held = recorded[then["event_id"]]
        if then["event_timestamp"] is None:
            assert "counted_at_us" not in held
            continue
        counted = [held[name] for name in COUNTER_COLUMNS]
        assert counted == pytest.approx([then[n] for n in COUNTER_COLUMNS], rel=1e-6, abs=1e-9)
        assert held["counted_at_us"] == microseconds(then["event_timestamp"])
        assert held["hist_item_key"] == (then["hist"] or [])[-HISTORY_LENGTH:]
        # Before a reader's first profile the join has none, which the encoder reads as unknown.
        assert held["country"] == (then["country"] or UNKNOWN)


def join(features) -> list[dict]:
    """As `trainer/labels.py` joins: each table's last row from strictly before the action."""
    counters, profiles, engagements = (
        f"read_parquet('{features / t.value}')"
        for t in (Table.USER_COUNTERS, Table.USER_PROFILES, Table.ENGAGEMENTS)
    )
    with duckdb.connect() as connection:
        rows = connection.execute(f"""
            WITH asked AS (SELECT event_id, user_id, "at" FROM {engagements}),
            past AS (
                SELECT a.event_id, list(e.item_key ORDER BY e."at", e.event_id) AS hist
                FROM asked a JOIN {engagements} e ON a.user_id = e.user_id AND e."at" < a."at"
                GROUP BY a.event_id)
            SELECT a.event_id AS event_id, c.*, p.country, past.hist FROM asked a
            ASOF LEFT JOIN {counters} c ON a.user_id = c.user_id AND a."at" > c.event_timestamp
            ASOF LEFT JOIN {profiles} p ON a.user_id = p.user_id AND a."at" > p.profile_at
            LEFT JOIN past ON past.event_id = a.event_id""")
        return rows.to_arrow_reader(10_000).read_all().to_pylist()
