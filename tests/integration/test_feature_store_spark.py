"""The feature tables by Spark, in this process' own Java, against DuckDB's."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from feature_tables import assert_same_tables, read_tables, write_tables
from feature_world import DAYS, START, lake_of, world
from feedrank_core.contracts.features import PRIORS
from feedrank_feature_store.batch_engine import batch_engine
from feedrank_feature_store.settings import Settings
from feedrank_feature_store.tables import write_catalogue, write_features

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark runs on Java 17: none here"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning"),
]


def test_spark_which_the_settings_ask_for_and_duckdb_give_the_same_tables(tmp_path, monkeypatch):
    from feedrank_feature_store.adapters.spark_engine import SparkEngine

    # One run of a few rows: what the better compiler takes never comes back.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    monkeypatch.setenv("FEEDRANK_FEATURE_STORE_ENGINE", "spark")
    monkeypatch.setenv("FEEDRANK_SPARK_MASTER", "local[2]")
    monkeypatch.setenv("FEEDRANK_FEATURE_STORE_MEMORY_GB", "1")
    as_of, settings = START + timedelta(days=DAYS - 5), Settings(home=tmp_path)
    spark = settings.place.features
    write_tables(lake_of(tmp_path, world(4)), tmp_path / "duckdb", as_of)
    with batch_engine(settings, as_of) as engine:
        assert isinstance(engine, SparkEngine)
        assert engine._session.sparkContext.master == "local[2]"
        write_catalogue(engine, spark, as_of)
        write_features(engine, spark, as_of)
    assert_same_tables(read_tables(spark), read_tables(tmp_path / "duckdb"))
    assert (spark / PRIORS).exists()
