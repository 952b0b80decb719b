"""Feast over the feature tables: joins at points in time, and what is read online."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.features import COUNTER_COLUMNS

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_join_gives_the_last_state_before_and_never_a_later_one(tmp_path, feast_store):
    states = [("u", START + timedelta(hours=h), float(h)) for h in (1, 5, 9)]
    columns = {name: [v for _, _, v in states] for name in COUNTER_COLUMNS}
    at = pa.array([t for _, t, _ in states], pa.timestamp("us", tz="UTC"))
    table = {"user_id": ["u"] * 3, "event_timestamp": at, "counted_at_us": [0, 1, 2]} | columns
    (tmp_path / "features").mkdir()
    pq.write_table(pa.table(table), tmp_path / "features" / "user_counters.parquet")
    store = feast_store.open_store(tmp_path, "redis://127.0.0.1:1/0")
    feast_store.apply(store)
    hours = list(range(12))
    asked = pd.DataFrame(
        {
            "user_id": "u",
            "event_timestamp": pd.to_datetime([START + timedelta(hours=h) for h in hours]),
        }
    )
    job = store.get_historical_features(entity_df=asked, features=["user_counters:likes_forever"])
    found = job.to_df().sort_values("event_timestamp")["likes_forever"]
    brute = [
        max((v for _, t, v in states if t <= START + timedelta(hours=h)), default=None)
        for h in hours
    ]
    assert [None if pd.isna(v) else v for v in found] == brute
