"""The feature tables by Spark, in this process' own Java, against DuckDB's."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from feature_tables import read_tables, write_tables
from feature_world import DAYS, START, lake_of, world
from feedrank_core.contracts.features import PRIORS, Table
from feedrank_feature_store.scratch import scratch_folder
from feedrank_feature_store.tables import write_catalogue, write_features

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark runs on Java 17: none here"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning"),
]
KEYS = {
    Table.CATALOGUE: ("item_id",),
    Table.USERS: ("user_id",),
    Table.USER_PROFILES: ("user_id", "profile_at"),
    Table.ENGAGEMENTS: ("user_id", "at", "event_id"),
    Table.USER_COUNTERS: ("user_id", "event_timestamp"),
    Table.ITEM_COUNTERS: ("item_key", "event_timestamp"),
}


def test_spark_and_duckdb_give_the_same_tables(tmp_path, monkeypatch):
    from feedrank_feature_store.adapters.spark_engine import SparkEngine

    # One run of a few rows: what the better compiler takes never comes back.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    as_of = START + timedelta(days=DAYS - 5)
    lake = lake_of(tmp_path, world(4))
    write_tables(lake, tmp_path / "duckdb", as_of)
    with (
        scratch_folder(tmp_path / "spark") as scratch,
        SparkEngine(lake, as_of, scratch, master="local[2]", memory_gb=1.0) as engine,
    ):
        write_catalogue(engine, tmp_path / "spark", as_of)
        write_features(engine, tmp_path / "spark", as_of)
    ours, theirs = read_tables(tmp_path / "duckdb"), read_tables(tmp_path / "spark")
    for table, keys in KEYS.items():
        assert len(theirs[table]) == len(ours[table]) > 0, table
        for found, expected in zip(theirs[table], ours[table], strict=True):
            assert [found[key] for key in keys] == [expected[key] for key in keys], table
            assert_close(found, expected, str(table))
    assert (tmp_path / "spark" / PRIORS).exists()


def assert_close(found, expected, table):
    assert list(found) == list(expected)
    for name, value in expected.items():
        number = isinstance(value, float) or (
            isinstance(value, list) and bool(value) and isinstance(value[0], float)
        )
        close = pytest.approx(value, rel=1e-9, abs=1e-9) if number else value
        assert found[name] == close, f"{table}: {name}"
