"""Labels: which engaged actions are positives, each with its reader's counters at that time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from feedrank_core.contracts.features import (
    HALF_LIVES_S,
    USER_PROFILE_COLUMNS,
    Counter,
    HalfLife,
    Table,
    column,
)

LABEL_WINDOW_H = 2
"""Hours after served_at within which an action engages, the contract's."""
SERVED = "SELECT request_id, min(served_at) AS served_at FROM slates GROUP BY request_id"
"""When each slate was served; one that was logged twice, the first time."""

_DENSE = (
    (Counter.IMPRESSIONS, HalfLife.WEEK),
    (Counter.CLICKS, HalfLife.WEEK),
    (Counter.LIKES, HalfLife.WEEK),
    (Counter.ENGAGEMENTS, HalfLife.DAY),
    (Counter.ENGAGEMENTS, HalfLife.WEEK),
    (Counter.ENGAGEMENTS, HalfLife.FOREVER),
    (Counter.DWELL_S, HalfLife.WEEK),
    (Counter.HIDES, HalfLife.MONTH),
)
USER_DENSE = tuple(column(c, h) for c, h in _DENSE)
"""Counters that the user tower reads."""
_HALF_LIFE_S = np.array([HALF_LIVES_S[h] for _, h in _DENSE])


def labelled_actions(
    features: Path, *, as_of: datetime, connection: duckdb.DuckDBPyConnection, rows: int
) -> Iterator[pa.RecordBatch]:
    """Every engaged action before `as_of`, by reader and time, `rows` at a time.

    Columns: user_id, item_key, action, at, is_label, counted_at, the counters of USER_DENSE as
    they stood at counted_at, and the profile: both the last from strictly before the action, as
    Feast's own join gives them a microsecond earlier (decision 6). `connection` may hold a
    `slates` view; an action later than the window after its slate was served is no label, though
    it is history. DuckDB sorts on disk where memory does not hold the log.
    """
    counters, profiles = (features / t.value for t in (Table.USER_COUNTERS, Table.USER_PROFILES))
    names = ", ".join([*(f"c.{n}" for n in USER_DENSE), *(f"p.{n}" for n in USER_PROFILE_COLUMNS)])
    query = f"""
        WITH served AS ({_served(connection)}), e AS (
            SELECT e.user_id, item_key, action, e."at",
                   coalesce(e."at" <= served_at + INTERVAL {LABEL_WINDOW_H} HOUR, true) AND
                   row_number() OVER (
                       PARTITION BY e.user_id, item_key, request_id ORDER BY e."at"
                   ) = 1 AS is_label
            FROM read_parquet('{features / Table.ENGAGEMENTS.value}') e
            LEFT JOIN served USING (request_id)
            WHERE e."at" <= $as_of
        )
        SELECT e.*, c.event_timestamp AS counted_at, {names} FROM e
        ASOF LEFT JOIN read_parquet('{counters}') c
            ON e.user_id = c.user_id AND e."at" > c.event_timestamp
        ASOF LEFT JOIN read_parquet('{profiles}') p
            ON e.user_id = p.user_id AND e."at" > p.profile_at
        ORDER BY e.user_id, e."at", e.item_key"""
    return iter(connection.execute(query, {"as_of": as_of}).to_arrow_reader(rows))


def _served(connection: duckdb.DuckDBPyConnection) -> str:
    views = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
    if "slates" in views:
        return SERVED
    return "SELECT NULL::VARCHAR AS request_id, NULL::TIMESTAMPTZ AS served_at WHERE false"


def decayed_counters(batch: pa.Table, at_s: np.ndarray) -> np.ndarray:
    """log1p of the counters, decayed to the action's time. Shapes: (N, F) float32."""
    counted_s = seconds(batch["counted_at"])
    elapsed = np.nan_to_num(np.maximum(at_s - counted_s, 0))
    values = np.stack(
        [
            np.nan_to_num(batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False))
            for name in USER_DENSE
        ],
        axis=1,
    )
    return np.log1p(np.maximum(values * 2.0 ** (-elapsed[:, None] / _HALF_LIFE_S), 0)).astype(
        np.float32
    )


def seconds(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Unix seconds of timestamps, NaN where null. Shapes: (N,) float64."""
    cast = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.float64(), safe=False)
    return cast.to_numpy(zero_copy_only=False) / 1e6
