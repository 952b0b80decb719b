"""The lake's files are read by DuckDB itself, within its memory limit and wherever they lie."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_core.contracts.items import TEXT_VECTOR_DIM
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_views import VIEWS
from feedrank_feature_store.adapters.duckdb_engine import ROWS_HELD, DuckDbEngine

AT = datetime(2026, 1, 2, 23, 59, 59, tzinfo=UTC)
NUM_ITEMS = 100_000
NUM_EVENTS = 800_000
PATIENCE_S = 60

# A process of its own: a pool of Arrow's tells only the most that it ever held.
READING = """
import sys
from pathlib import Path
import pyarrow as pa
from feedrank_core.runtime.lake import Lake

pool = pa.default_memory_pool()
with Lake(Path(sys.argv[1])).connect() as connection:
    batches = connection.execute("SELECT * FROM items").to_arrow_reader(1_000)
    print(sum(batch.num_rows for batch in batches), pool.max_memory())
"""


def wide_items() -> pa.Table:
    """Items with vectors, as large as the catalogue's rows are."""
    values = np.random.default_rng(1).random(NUM_ITEMS * TEXT_VECTOR_DIM, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), TEXT_VECTOR_DIM)
    word = pa.array(["news"] * NUM_ITEMS)
    at = pa.array([AT] * NUM_ITEMS, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(NUM_ITEMS)],
            "item_type": word,
            "creator_id": word,
            "category": word,
            "created_at": at,
            "accepted_at": at,
            "active": [True] * NUM_ITEMS,
            "text_vector": vectors,
            "image_vector": vectors,
        }
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    filled = Lake(tmp_path_factory.mktemp("lake"))
    filled.append("items", wide_items())
    return filled


def test_what_is_read_of_the_lake_is_within_the_limit_of_duckdb(lake: Lake) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", READING, str(lake.root)], check=True, capture_output=True, text=True
    )
    num_rows, most_bytes = map(int, answer.stdout.split()[-2:])  # a slow query shows its progress
    assert num_rows == NUM_ITEMS
    size = NUM_ITEMS * 2 * TEXT_VECTOR_DIM * 4
    assert most_bytes < 0.1 * size, "something is read by Arrow, whose memory nothing bounds"


def test_a_long_log_with_a_repeated_event_can_be_read_as_it_comes(tmp_path: Path) -> None:
    ids = pa.array([f"e{n}" for n in range(NUM_EVENTS)])
    at = pa.array([AT] * NUM_EVENTS, pa.timestamp("us", "UTC"))
    user = pa.repeat("u1", NUM_EVENTS)
    events = pa.table({"event_id": ids, "item_id": ids, "user_id": user, "accepted_at": at})
    lake = Lake(tmp_path)
    for rows in (events, events.slice(NUM_EVENTS - 1)):
        lake.append("interactions", rows)
    with lake.connect() as connection:
        giving_up = threading.Timer(PATIENCE_S, connection.interrupt)
        giving_up.start()
        try:
            reader = connection.execute("SELECT event_id FROM interactions").to_arrow_reader(1_000)
            assert sum(batch.num_rows for batch in reader) == NUM_EVENTS
        finally:
            giving_up.cancel()


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_a_union_which_may_never_end_where_it_is_read_as_it_comes(
    lake: Lake, view: str
) -> None:
    with lake.connect() as connection:
        [(_, plan)] = connection.execute(f"EXPLAIN SELECT * FROM {view}").fetchall()
    assert "UNION" not in plan


def test_a_statement_is_planned_without_a_look_into_every_file(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for name in ("e1", "e2", "e3"):
        event = {"event_id": name, "event_type": "view", "user_id": "u1", "item_id": "i1"}
        event |= {"surface": "home", "occurred_at": AT, "accepted_at": AT}
        lake.append("interactions", [event])
    with lake.connect() as connection:
        for file in lake.files("interactions")[1:]:
            Path(file).write_bytes(b"")
        connection.execute("EXPLAIN SELECT * FROM interactions")
        with pytest.raises(duckdb.Error, match="too small"):
            connection.execute("SELECT * FROM interactions").fetchall()


def test_dealing_out_items_holds_few_rows_of_each_piece(lake: Lake, tmp_path: Path) -> None:
    with DuckDbEngine(lake.connect(), tmp_path, num_pieces=2) as engine:
        pieces = engine.cut("item_key", items=engine.view("items"))
        assert pieces.whole("items").count().execute() == NUM_ITEMS
    files = [pq.read_metadata(file) for file in tmp_path.rglob("*.parquet")]
    assert max(f.row_group(g).num_rows for f in files for g in range(f.num_row_groups)) <= ROWS_HELD
    assert sum(file.num_rows for file in files) == NUM_ITEMS


@pytest.mark.parametrize(
    "folder", ["plain", "a b", "st*r", "q?", "é", "h#h", "quo'te", "date=2020"]
)
def test_a_lake_is_read_wherever_it_lies(tmp_path: Path, folder: str) -> None:
    lake = Lake(tmp_path / folder)
    event = {"event_id": "e1", "event_type": "view", "user_id": "u1", "item_id": "i1"}
    lake.append("interactions", [event | {"surface": "home", "occurred_at": AT, "accepted_at": AT}])
    assert all(Path(file).exists() for file in lake.files("interactions"))
    with lake.connect(AT) as connection:
        seen = connection.execute("SELECT event_id, user_id FROM interactions").fetchall()
        days = connection.execute("SELECT date, typeof(date) FROM _interactions").fetchall()
    assert seen == [("e1", "u1")]
    assert days == [(date(2026, 1, 2), "DATE")]
