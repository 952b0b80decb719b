"""Feature tables of a lake, as the daily run writes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from feedrank_core.contracts.features import Table
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.scratch import scratch_folder
from feedrank_feature_store.tables import write_catalogue, write_features

KEYS = {
    Table.CATALOGUE: ("item_id",),
    Table.USERS: ("user_id",),
    Table.USER_PROFILES: ("user_id", "profile_at"),
    Table.ENGAGEMENTS: ("user_id", "at", "event_id"),
    Table.USER_COUNTERS: ("user_id", "event_timestamp"),
    Table.ITEM_COUNTERS: ("item_key", "event_timestamp"),
}


def write_tables(lake: Lake, features: Path, as_of: datetime, *, num_pieces: int = 1) -> None:
    """The catalogue and its priors, then the features."""
    for write in (write_catalogue, write_features):
        with (
            scratch_folder(features) as scratch,
            DuckDbEngine(lake.connect(as_of), scratch, num_pieces=num_pieces) as engine,
        ):
            write(engine, features, as_of)


def read_tables(features: Path) -> dict[Table, list[dict[str, Any]]]:
    """Every table's rows."""
    return {table: pq.read_table(features / table).to_pylist() for table in Table}


def assert_same_tables(
    found: dict[Table, list[dict[str, Any]]], expected: dict[Table, list[dict[str, Any]]]
) -> None:
    """The same rows in the same order, of every table some; sums up to the order of their parts."""
    for table, keys in KEYS.items():
        assert len(found[table]) == len(expected[table]) > 0, table
        for one, other in zip(found[table], expected[table], strict=True):
            assert [one[key] for key in keys] == [other[key] for key in keys], table
            assert list(one) == list(other)
            for name, value in other.items():
                assert one[name] == _close_to(value), f"{table}: {name}"


def _close_to(value: Any) -> Any:
    numbers = value if isinstance(value, list) else [value]
    is_number = bool(numbers) and isinstance(numbers[0], float)
    return pytest.approx(value, rel=1e-9, abs=1e-9) if is_number else value
