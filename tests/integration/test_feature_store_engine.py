"""The batch's engine: which one the settings ask for, and DuckDB within its memory limit."""

from datetime import timedelta

import duckdb
import pytest
from feature_tables import assert_same_tables, read_tables
from feature_world import DAYS, START, lake_of, world
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.batch_engine import batch_engine
from feedrank_feature_store.scratch import scratch_folder
from feedrank_feature_store.settings import Settings
from feedrank_feature_store.tables import write_catalogue, write_features

AS_OF = START + timedelta(days=DAYS)
TIGHT_GB = 0.1


def write(lake, features, *, memory_gb, spill_bytes=10**9):
    for write_part in (write_catalogue, write_features):
        connection = lake.connect(AS_OF)
        # What a thread must hold is the same for any number of cores.
        connection.execute("SET threads = 2")
        with (
            scratch_folder(features) as scratch,
            DuckDbEngine(connection, scratch, memory_gb=memory_gb) as engine,
        ):
            connection.execute(f"SET max_temp_directory_size = '{spill_bytes}B'")
            write_part(engine, features, AS_OF)


@pytest.mark.long
def test_what_does_not_fit_into_memory_is_spilled_and_changes_no_value(tmp_path):
    lake = lake_of(tmp_path, world(6, num_events=60_000))
    write(lake, tmp_path / "roomy", memory_gb=4.0, spill_bytes=0)
    with pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"):
        write(lake, tmp_path / "no room", memory_gb=TIGHT_GB, spill_bytes=0)
    write(lake, tmp_path / "tight", memory_gb=TIGHT_GB)
    assert_same_tables(read_tables(tmp_path / "tight"), read_tables(tmp_path / "roomy"))


def test_without_a_word_it_is_duckdb_with_the_memory_that_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDRANK_FEATURE_STORE_MEMORY_GB", "0.5")
    settings = Settings(home=tmp_path)
    with batch_engine(settings, AS_OF) as engine:
        assert isinstance(engine, DuckDbEngine)
        said = "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
        assert engine._connection.execute(said).fetchone() == (
            "476.8 MiB",
            str(settings.place.features / ".scratch" / "spilled"),
        )
