"""Feature tables of a lake, as the daily run writes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from feedrank_core.contracts.features import Table
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine
from feedrank_feature_store.scratch import scratch_folder
from feedrank_feature_store.tables import write_catalogue, write_features


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
