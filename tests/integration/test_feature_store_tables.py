"""The feature tables over a tiny lake: batch equals stream, and the future does not leak."""

from datetime import UTC, datetime, timedelta

import pytest
from feature_tables import read_tables, write_tables
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import COUNTER_COLUMNS, Table, increments
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import ItemType
from feedrank_core.features.counters import CounterState, fold, value_at
from feedrank_core.runtime.lake import Lake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

START = datetime(2025, 12, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=800)
ITEM = {
    "item_id": "video-1",
    "item_type": ItemType.VIDEO,
    "creator_id": "c",
    "category": "music",
    "created_at": START,
    "active": True,
    "accepted_at": START,
}


def interaction(number, action, at, dwell_s=None, user="u"):
    return {
        "event_id": f"e{number}",
        "event_type": action,
        "user_id": user,
        "item_id": "video-1",
        "dwell_s": dwell_s,
        "surface": "home",
        "occurred_at": at,
        "accepted_at": at,
    }


def extract(root, rows, as_of=AS_OF):
    lake = Lake(root / "lake")
    lake.append("items", [ITEM])
    if rows:
        lake.append("interactions", rows)
    write_tables(lake, root / "features", as_of)
    return read_tables(root / "features")


offsets_us = st.integers(0, 799 * 86_400 * 10**6)
actions = st.sampled_from(list(InteractionType))
events = st.lists(st.tuples(offsets_us, actions, st.floats(0, 100)), min_size=1, max_size=12)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events)
def test_batch_counters_equal_the_fold_of_the_stream(tmp_path_factory, drawn):
    rows = [
        interaction(n, action, START + timedelta(microseconds=us), dwell)
        for n, (us, action, dwell) in enumerate(drawn)
    ]
    tables = extract(tmp_path_factory.mktemp("lake"), rows)
    state, after = CounterState(), {}
    for row in sorted(rows, key=lambda r: r["accepted_at"]):
        moved = increments(row["event_type"], row["dwell_s"], ItemType.VIDEO)
        state = after[row["accepted_at"]] = fold(state, row["accepted_at"], moved)
    for found in tables[Table.USER_COUNTERS]:
        expected = dict(after[found["event_timestamp"]].values)
        assert {n: found[n] for n in expected} == pytest.approx(expected, rel=1e-6, abs=1e-9)
    now = value_at(state, AS_OF)
    expected = {name: now.get(name, 0.0) for name in COUNTER_COLUMNS}
    for row in (tables[Table.USERS][0], tables[Table.CATALOGUE][0]):
        assert {n: row[n] for n in expected} == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_state_before_every_engagement_is_kept_and_the_last_one(tmp_path):
    hours = [0, 1, 2, 3, 4, 4, 5, 9]
    likes = {2, 4}
    rows = [
        interaction(
            n,
            InteractionType.LIKE if hour in likes else InteractionType.VIEW,
            START + timedelta(hours=hour),
            1.0,
        )
        for n, hour in enumerate(hours)
    ]
    for table in (Table.USER_COUNTERS, Table.ITEM_COUNTERS):
        found = extract(tmp_path / table, rows)[table]
        kept = [(r["event_timestamp"] - START) // timedelta(hours=1) for r in found]
        assert kept == [1, 3, 9]
        assert [r["likes_forever"] for r in found] == [0.0, 1.0, 3.0]


def test_a_planted_value_from_the_future_does_not_leak(tmp_path):
    past = interaction(0, InteractionType.LIKE, START + timedelta(days=1))
    future = interaction(1, InteractionType.LIKE, START + timedelta(days=3))
    tables = extract(tmp_path, [past, future], START + timedelta(days=2))
    reader = tables[Table.USERS][0]
    assert reader["likes_forever"] == tables[Table.CATALOGUE][0]["likes"] == 1.0
    assert reader["hist_at"] == [past["accepted_at"]]
    assert reader["seen"] == [item_key("video-1")]
    assert len(tables[Table.ENGAGEMENTS]) == len(tables[Table.USER_COUNTERS]) == 1


def test_an_empty_lake_gives_empty_tables_and_an_average_item(tmp_path):
    tables = extract(tmp_path, [])
    assert tables[Table.USERS] == tables[Table.ENGAGEMENTS] == []
    assert tables[Table.CATALOGUE][0]["quality"] == pytest.approx(0.5)
