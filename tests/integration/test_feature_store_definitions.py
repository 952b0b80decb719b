"""The batch's features against brute force over the same log (decision 7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from feature_oracle import Oracle, Records, Row
from feature_tables import read_tables, write_tables
from feature_world import DAYS, START, lake_of, world
from feedrank_core.contracts.features import HISTORY_LENGTH, PRIORS, Priors, Table
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.priors import read_priors
from feedrank_feature_store.tables import write_features

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

Tables = dict[Table, list[dict[str, Any]]]


def written(root: Path, records: Records, as_of: datetime, *, num_pieces: int = 1) -> Tables:
    write_tables(lake_of(root, records), root / "features", as_of, num_pieces=num_pieces)
    return read_tables(root / "features")


def assert_same(found: dict[str, Any], expected: dict[str, Any], who: str) -> None:
    for name, value in expected.items():
        close = value if not is_number(value) else pytest.approx(value, rel=1e-6, abs=1e-9)
        assert found[name] == close, f"{who}: {name}"


def is_number(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], float)
    )


@pytest.mark.parametrize(("seed", "days", "num_pieces"), [(1, 9, 1), (2, DAYS + 1, 3)])
def test_every_feature_equals_brute_force(tmp_path, seed, days, num_pieces):
    records, as_of = world(seed), START + timedelta(days=days)
    tables = written(tmp_path, records, as_of, num_pieces=num_pieces)
    oracle = Oracle(records, as_of)
    priors = read_priors(tmp_path / "features")
    assert priors is not None
    assert_same(dict(priors), dict(oracle.priors()), "priors")
    readers = {row["user_id"]: row for row in tables[Table.USERS]}
    assert set(readers) == {r["user_id"] for r in (*oracle.events, *oracle.profiles)}
    for user_id, found in readers.items():
        assert_same(found, oracle.reader(user_id, priors), user_id)
        assert_same(found, oracle.profile(user_id) or {}, user_id)
    items = {row["item_id"]: row for row in tables[Table.CATALOGUE]}
    assert set(items) == set(oracle.last_version)
    for item_id, found in items.items():
        assert_same(found, oracle.item(item_id, priors), item_id)
        assert found["item_type"] == oracle.item_type(item_id)
        assert found["category"] == oracle.last_version[item_id]["category"]
    engaged = [e for e in oracle.events if oracle.engaged(e)]
    assert {r["event_id"] for r in tables[Table.ENGAGEMENTS]} == {e["event_id"] for e in engaged}


def test_a_world_holds_what_makes_features_hard():
    records = world(1)
    oracle = Oracle(records, START + timedelta(days=DAYS + 1))
    views = [e for e in oracle.events if e.get("event_type") == "view"]
    assert len(oracle.events) < len(records.impressions) + len(records.interactions)
    assert any(oracle.type_then(v) is None and v["item_id"] in oracle.last_version for v in views)
    assert any(oracle.item_type(i) != v["item_type"] for i, v in oracle.last_version.items())
    assert any(e["item_id"] not in oracle.last_version for e in oracle.events)
    readers = [oracle.reader(f"user-{n}", oracle.priors()) for n in range(3)]
    assert any(len(reader["hist_at"]) == HISTORY_LENGTH for reader in readers)


def test_a_retention_shortens_what_features_are_made_of(tmp_path):
    records, as_of = world(5, num_events=600), START + timedelta(days=DAYS + 1)
    first_kept = START + timedelta(days=DAYS // 2)
    lake_of(tmp_path, records).compact(first_kept=first_kept.date())
    write_tables(Lake(tmp_path / "lake"), tmp_path / "features", as_of)

    def kept(events: list[Row]) -> list[Row]:
        return [event for event in events if event["accepted_at"] >= first_kept]

    shortened = replace(
        records,
        impressions=kept(records.impressions),
        interactions=kept(records.interactions),
    )
    assert len(shortened.interactions) < len(records.interactions)
    oracle, priors = Oracle(shortened, as_of), read_priors(tmp_path / "features")
    assert priors is not None
    for found in read_tables(tmp_path / "features")[Table.USERS]:
        user_id = found["user_id"]
        assert_same(found, oracle.reader(user_id, priors), user_id)


def test_features_are_smoothed_by_the_priors_that_were_last_written(tmp_path):
    records, as_of = world(3, num_events=200), START + timedelta(days=DAYS)
    lake = lake_of(tmp_path, records)
    given = Priors(as_of=START, mean_value=1.0, click_rate=0.9, like_rate=0.8, engagement_rate=0.7)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / PRIORS).write_text(given.model_dump_json())
    with DuckDbEngine(lake.connect(as_of), tmp_path / "scratch") as engine:
        write_features(engine, tmp_path / "features", as_of)
    oracle = Oracle(records, as_of)
    for found in pq.read_table(tmp_path / "features" / Table.USERS).to_pylist():
        expected = oracle.reader(found["user_id"], given)
        assert found["click_rate"] == pytest.approx(expected["click_rate"])
