"""Exports: any table as a file, and back again as the same table."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_tables import write_tables
from feedrank_cli.errors import CommandError
from feedrank_cli.export_command import export_table
from feedrank_cli.exports import writing
from feedrank_cli.exports.tables import stream, table_names
from feedrank_cli.exports.writing import FORMATS
from feedrank_cli.import_command import bring_in
from feedrank_cli.settings import Settings
from feedrank_core.contracts.features import Table
from feedrank_core.contracts.schemas_dump import EXAMPLES
from feedrank_core.contracts.signals import Verdict
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS, contract_schema
from feedrank_core.runtime.lake_views import ITEM_TYPES
from feedrank_simulator.bulk import write_history
from feedrank_simulator.world import World

END = datetime(2026, 1, 15, tzinfo=UTC)
VIEWS = ("items", "users", "impressions", "interactions", "slates")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose lake holds a small simulated history."""
    folder = tmp_path_factory.mktemp("exported")
    write_history(World.make(5, 60, 120, days=3, end=END), folder / "history", seed=2)
    settings = Settings(home=folder / "home")
    bring_in(settings, "parquet", folder / "history")
    return settings


@pytest.fixture(scope="module")
def filled(settings: Settings) -> Settings:
    """The same home with a row at least in every table that can be exported."""
    lake, verdict = Lake(settings.place.lake), EXAMPLES / "verdict" / "quiet.json"
    lake.append("verdicts", [Verdict.model_validate_json(verdict.read_bytes()).model_dump()])
    write_tables(lake, settings.place.features, END)
    return settings


def export(settings: Settings, table: str, path: Path, **more) -> int:  # type: ignore[no-untyped-def]
    options = {"form": None, "as_of": None, "where": None} | more
    return export_table(settings.place, table, path, tick=lambda count, note="": None, **options)


def rows(settings: Settings, view: str) -> list[tuple]:
    """The rows of a view in one order; JSON texts by what they say."""
    with Lake(settings.place.lake).connect() as lake:
        relation = lake.sql(f"SELECT * EXCLUDE (topic_partition, topic_offset) FROM {view}")
        names = relation.columns
        found = relation.fetchall()
    meant = [
        tuple(json.loads(v) if n.endswith("_json") else v for n, v in zip(names, row, strict=True))
        for row in found
    ]
    return sorted(meant, key=repr)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
def test_what_is_exported_and_imported_again_is_the_same_table(
    ending: str, settings: Settings, tmp_path: Path
) -> None:
    other = Settings(home=tmp_path / "home")
    for view in VIEWS:
        path = tmp_path / f"of-{view}.{ending}"
        assert export(settings, view, path) == len(rows(settings, view))
        outcome = bring_in(other, ending.split(".")[0], path, to="lake")
        assert outcome.rejects.count == 0
        assert rows(other, view) == rows(settings, view)
    assert len(rows(other, "interactions")) > 100


@pytest.mark.parametrize("table", table_names())
def test_every_table_that_is_named_goes_out_whole_in_every_format(
    table: str, filled: Settings, tmp_path: Path
) -> None:
    expected = by_other_ways(filled, table)
    for form in FORMATS:
        assert export(filled, table, tmp_path / f"of.{form}") == expected.num_rows > 0
    found = pq.read_table(tmp_path / "of.parquet")
    assert found.column_names == expected.column_names
    assert in_order(found) == in_order(expected)


def in_order(table: pa.Table) -> list[str]:
    """Its rows as texts: a zone has more than one name."""
    return sorted(json.dumps(row, default=str) for row in table.to_pylist())


def by_other_ways(settings: Settings, table: str) -> pa.Table:
    """The rows of a table as others read them, without what the lake adds to them."""
    kind, _, name = table.rpartition("/")
    if kind == "features":
        return pq.read_table(settings.place.features / f"{name}.parquet")
    lake = Lake(settings.place.lake)
    if kind == "log":
        wanted = contract_schema(name).names
        ends = dict.fromkeys(range(NOT_FROM_BUS, TOPICS[name].partitions), sys.maxsize)
        found = pa.Table.from_batches(lake.read(name, starts={}, ends=ends)).select(wanted)
        assert found.num_rows == lake.num_rows(name)
        return found
    with lake.connect() as connection:
        found = connection.sql(f"FROM {name}").to_arrow_table()
    added = ["topic_partition", "topic_offset", "item_key"] if table != ITEM_TYPES else []
    return found.drop_columns([name for name in added if name in found.column_names])


def test_only_what_a_condition_and_an_instant_leave_is_exported(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "clicks.parquet"
    noon = datetime(2026, 1, 13, 12, tzinfo=UTC)
    export(settings, "interactions", path, where="event_type = 'click'", as_of=noon)
    found = pq.read_table(path)
    assert set(found["event_type"].to_pylist()) == {"click"}
    with Lake(settings.place.lake).connect() as lake:
        count = "SELECT count(*) FROM interactions WHERE event_type = 'click' AND accepted_at <= $1"
        (expected,) = lake.execute(count, [noon]).fetchone() or (0,)
    assert found.num_rows == expected > 0


@pytest.mark.parametrize("where", ["clicked", "1; DROP TABLE items", "position ="])
def test_a_condition_that_is_none_is_told_with_the_columns(
    where: str, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="--where") as error:
        export(settings, "interactions", tmp_path / "x.parquet", where=where)
    assert "event_type" in error.value.remedy
    assert not list(tmp_path.iterdir())


def test_an_unknown_table_names_the_known_ones_and_a_nameless_format_the_formats(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="no table 'itemz'") as error:
        export(settings, "itemz", tmp_path / "x.csv")
    assert all(name in error.value.remedy for name in table_names())
    with pytest.raises(CommandError, match="does not say its format"):
        export(settings, "items", tmp_path / "items.xlsx")


def test_the_log_holds_every_record_and_of_a_topic_never_written_none(
    settings: Settings, tmp_path: Path
) -> None:
    home = Settings(home=tmp_path / "home")
    path = tmp_path / "items.parquet"
    export(settings, "items", path)
    older = pq.read_table(path).slice(0, 3)
    twice = older["item_id"][0].as_py()
    instants = pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC"))
    older = older.set_column(older.schema.names.index("accepted_at"), "accepted_at", instants)
    pq.write_table(older, tmp_path / "older.parquet")
    bring_in(home, "parquet", path)
    bring_in(home, "parquet", tmp_path / "older.parquet")
    assert export(home, "items", tmp_path / "a.parquet") == 120
    assert export(home, "log/items", tmp_path / "b.parquet") == 123
    assert export(home, "log/items", tmp_path / "b.parquet", where=f"item_id = '{twice}'") == 2
    assert export(home, "log/verdicts", tmp_path / "c.jsonl") == 0
    assert (tmp_path / "c.jsonl").read_bytes() == b""


def test_feature_tables_are_exported_as_they_are_and_not_as_of_another_day(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(CommandError, match="is not there yet"):
        export(settings, "features/user_counters", tmp_path / "x.csv")
    settings.place.features.mkdir(parents=True)
    table = pa.table({"user_id": ["a", "b"], "interests": [["x"], None], "likes_7d": [0.5, 2.0]})
    pq.write_table(table, settings.place.features / Table.USER_COUNTERS)
    export(settings, "features/user_counters", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found[0] == {"user_id": "a", "interests": '["x"]', "likes_7d": "0.5"}
    export(settings, "features/user_counters", tmp_path / "x.parquet", where="likes_7d > 1")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == table.slice(1).to_pylist()
    with pytest.raises(CommandError, match="as of the run that wrote it"):
        export(settings, "features/user_counters", tmp_path / "x.csv", as_of=END)


def test_an_export_that_fails_leaves_the_old_file_and_nothing_beside(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("old")

    def full(self: object, batch: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.JsonLinesWriter, "write", full)
    with pytest.raises(CommandError, match=r"was not written: .*No space left"):
        export(settings, "items", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_come_as_a_stream_of_small_batches(settings: Settings, tmp_path: Path) -> None:
    with stream(settings.place, "interactions", as_of=None, where=None, beside=tmp_path) as batches:
        assert isinstance(batches, pa.RecordBatchReader)
        first = batches.read_next_batch()
    assert 0 < first.num_rows <= 50_000
