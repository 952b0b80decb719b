"""Upkeep of the lake beside those who write and read it: compaction, retention, vacuum."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.users import User
from feedrank_core.runtime import lake_upkeep
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.lake_upkeep import EXPIRING
from feedrank_core.runtime.lake_views import EVENT_KEYS

T0 = datetime(2026, 1, 2, tzinfo=UTC)
YEAR = timedelta(days=365)


def interaction(n: int, *, accepted_at: datetime = T0, **changes: Any) -> dict[str, Any]:
    event = Interaction(
        event_id=f"e{n}",
        user_id=f"u{n % 7}",
        item_id="i1",
        event_type=InteractionType.CLICK,
        occurred_at=changes.get("occurred_at", accepted_at),
        accepted_at=accepted_at,
    )
    return event.model_dump() | {"topic_partition": 0, "topic_offset": n}


def count(lake: Lake, view: str, as_of: datetime | None = None) -> int:
    with lake.connect(as_of) as con:
        row = con.execute(f"SELECT count(*) FROM {view}").fetchone()
    assert row is not None
    return row[0]


def append(lake: Lake, *numbers: int, **options: Any) -> None:
    rows = [interaction(n, **options) for n in numbers]
    lake.append("interactions", rows, positions={0: numbers[-1] + 1})


def files(lake: Lake) -> list[Path]:
    return sorted((lake.root / "interactions").rglob("*.parquet"))


def test_an_event_of_last_year_that_is_accepted_today_counts_from_today(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    append(lake, 0, occurred_at=T0 - YEAR)
    assert [f.parent.name for f in files(lake)] == ["date=2026-01-02"]
    assert count(lake, "interactions", T0 - timedelta(microseconds=1)) == 0
    assert count(lake, "interactions", T0) == 1
    with lake.connect() as con:
        assert con.execute("SELECT occurred_at FROM interactions").fetchall() == [(T0 - YEAR,)]


def test_intakes_whose_clocks_differ_are_each_believed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    ahead = T0 + timedelta(seconds=90)
    append(lake, 0, accepted_at=ahead)
    append(lake, 1, accepted_at=T0)
    assert count(lake, "interactions", T0) == 1
    with lake.connect(ahead) as con:
        rows = con.execute("SELECT event_id FROM interactions ORDER BY accepted_at").fetchall()
    assert rows == [("e1",), ("e0",)]


def test_compaction_amid_appends_and_reads_loses_doubles_and_hides_nothing(tmp_path: Path) -> None:
    num_appends = 60
    Lake(tmp_path).append("interactions", [interaction(0)], positions={0: 1})
    failed: list[BaseException] = []

    def write() -> None:
        try:
            lake = Lake(tmp_path)
            for n in range(1, num_appends):
                append(lake, n)
        except BaseException as error:
            failed.append(error)

    writer, compactor, reader = Thread(target=write), Lake(tmp_path), Lake(tmp_path)
    writer.start()
    replaced, seen = 0, 0
    while writer.is_alive():
        replaced += compactor.compact(first_kept=date(2025, 1, 1))["interactions"]
        with reader.connect() as con:
            rows, distinct = con.execute(
                "SELECT count(*), count(DISTINCT topic_offset) FROM _interactions"
            ).fetchone() or (0, 0)
        assert rows == distinct >= seen
        seen = rows
    writer.join()
    assert not failed
    assert replaced > 1
    assert count(reader, "_interactions") == num_appends
    assert reader.positions("interactions") == {0: num_appends}


def test_a_table_that_cannot_be_compacted_is_named_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    for n in range(3):
        append(lake, n)
        lake.append("users", [User(user_id=f"u{n}", accepted_at=T0).model_dump()])
    files(lake)[0].unlink()
    with pytest.raises(LakeError, match=r"cannot be compacted.*: interactions: "):
        lake.compact()
    assert len(lake.files("users")) == 1


@pytest.mark.parametrize("kept", [lake_upkeep.KEEP_OLD_FILES, timedelta(0)])
def test_who_reads_while_the_lake_is_compacted_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: timedelta
) -> None:
    monkeypatch.setattr(lake_upkeep, "KEEP_OLD_FILES", kept)
    lake = Lake(tmp_path)
    for n in range(5):
        append(lake, n)
    with Lake(tmp_path).connect() as con:
        assert lake.compact()["interactions"] == 5
        if kept:
            rows = con.execute("SELECT count(*) FROM interactions").fetchone()
            assert rows == (5,)
        else:
            assert len(files(lake)) == 1
    assert count(lake, "interactions") == 5


def test_a_killed_writer_s_files_go_once_nobody_can_be_writing_them(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    append(lake, 0)
    folder = files(lake)[0].parent
    old, young = folder / "part-old.parquet", folder / "part-young.parquet"
    for orphan in (old, young):
        orphan.write_bytes(b"half a file")
    a_day_ago = time.time() - 25 * 3600
    os.utime(old, (a_day_ago, a_day_ago))
    lake.compact()
    assert (old.exists(), young.exists()) == (False, True)
    assert count(lake, "interactions") == 1


def test_only_a_retention_makes_old_events_go_and_their_positions_stay(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    append(lake, 0, accepted_at=T0 - YEAR)
    append(lake, 1, accepted_at=T0 - timedelta(days=1))
    append(lake, 2, accepted_at=T0)
    lake.append("users", [User(user_id="u1", accepted_at=T0 - YEAR).model_dump()])
    lake.compact()
    assert count(lake, "interactions") == 3
    lake.compact(first_kept=T0.date())
    assert count(lake, "interactions") == 1
    assert count(lake, "users") == 1
    assert lake.positions("interactions") == {0: 3}
    append(lake, 0, 1, 2)
    assert count(lake, "_interactions") == 1


def test_what_a_retention_made_go_is_removed_from_the_disk_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    append(lake, 0, accepted_at=T0 - YEAR)
    lake.compact(first_kept=T0.date())
    assert len(files(lake)) == 1
    monkeypatch.setattr(lake_upkeep, "KEEP_OLD_FILES", timedelta(0))
    lake.compact(first_kept=T0.date())
    assert files(lake) == []


def test_every_table_of_events_expires() -> None:
    assert {*EVENT_KEYS} < {*EXPIRING}
