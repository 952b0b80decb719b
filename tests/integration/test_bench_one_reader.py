"""What `feedrank bench one_reader` compares: the same events, of one reader and of many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feedrank_cli.bench import one_reader
from feedrank_core.runtime.lake import Lake

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NUM_EVENTS, MANY = 4_000, 50
EVENTS = """
    SELECT event_id, item_id, user_id, accepted_at FROM impressions UNION ALL
    SELECT event_id, item_id, user_id, accepted_at FROM interactions
"""


@pytest.mark.parametrize("num_readers", [1, MANY])
def test_a_lake_is_filled_with_known_items_up_to_now(
    tmp_path: Path, num_readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_reader, "CHUNK", NUM_EVENTS // 3)
    lake = Lake(tmp_path)
    one_reader.fill(lake, NUM_EVENTS, num_readers, seed=1, now=NOW)
    with lake.connect() as connection:
        found = connection.execute(
            f"""SELECT count(DISTINCT event_id), count(DISTINCT user_id),
                       min(accepted_at) >= $start, max(accepted_at) <= $now,
                       bool_and(item_id IN (SELECT item_id FROM items))
                FROM ({EVENTS})""",
            {"start": NOW - timedelta(days=one_reader.DAYS), "now": NOW},
        ).fetchone()
        kinds = connection.execute(
            "SELECT event_type, count(*), count(dwell_s) FROM interactions GROUP BY ALL"
        ).fetchall()
    assert found == (NUM_EVENTS, num_readers, True, True, True)
    assert {kind: bool(dwelt) for kind, _, dwelt in kinds} == {
        "click": False,
        "like": False,
        "view": True,
    }
    assert all(800 < num < 1_200 for _, num, _ in kinds)
