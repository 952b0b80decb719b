"""`feedrank import`: mapped files, bad files, the intake, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_cli.__main__ import app
from feedrank_cli.errors import CommandError
from feedrank_cli.import_command import bring_in, discover, example_mapping
from feedrank_cli.imports import routes
from feedrank_cli.imports.mapping import load_mapping
from feedrank_cli.settings import Settings
from feedrank_core.contracts.api import EventBatch
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, USERS
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.lake import Lake
from processes import Service, until
from typer.testing import CliRunner

AT = datetime(2026, 1, 15, tzinfo=UTC)
SOURCE = {
    "action": ["clk", "watched", "published", "other", "watched"],
    "uid": [1, 2, None, 4, 5],
    "item": [{"id": 7}] * 5,
    "watched_ms": [None, 2500, None, None, -5],
    "ts": [1_768_435_200_000 + n for n in range(5)],
    "loaded": ["15.01.2026 01:00"] * 5,
    "rank": pa.array([3, None, None, None, 1], pa.float64()),
    "author": ["a"] * 5,
    "section": ["sport"] * 5,
    "keywords": ["x,y"] * 5,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def table_of(rows: list[dict], folder: Path, name: str = "interactions.parquet") -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


def click(number: int, **more: object) -> dict:
    event = {
        "event_id": f"e{number}",
        "event_type": "click",
        "user_id": "u",
        "item_id": "i",
        "occurred_at": AT,
    }
    return event | more


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_file_of_another_shape_becomes_rows_of_two_topics_by_a_mapping(
    form: str, tmp_path: Path, settings: Settings
) -> None:
    table = pa.table(SOURCE)
    path = tmp_path / f"shop.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    (tmp_path / "shop.yaml").write_text(example_mapping())
    mapping = load_mapping(tmp_path / "shop.yaml")
    outcome = bring_in(settings, form, path, to="lake", mapping=mapping)
    assert dict(outcome.new) == {"interactions": 2, "items": 1}
    refused = [json.loads(line) for line in outcome.rejects.path.read_text().splitlines()]
    assert [(row["line"], row["reason"].split(":")[0]) for row in refused] == [
        (4, "no `where` of the mapping takes it"),
        (5, "dwell_s"),
    ]
    with Lake(settings.place.lake).connect() as lake:
        found = lake.sql(
            "SELECT user_id, item_id, event_type, position, dwell_s FROM interactions ORDER BY 1"
        )
        assert found.fetchall() == [("1", "7", "click", 3, None), ("2", "7", "view", 0, 2.5)]
        item = lake.sql("SELECT item_id, category, tags FROM items").fetchall()
        assert item == [("7", "football", ["x", "y"])]


@pytest.mark.parametrize(
    ("rows", "said", "remedy"),
    [
        ([click(1, dwel_s=1.0)], r"no column dwel_s\. Did you mean 'dwell_s'", "--ignore-unknown"),
        (
            [click(1) | {"occurred_at": AT.replace(tzinfo=None)}],
            "occurred_at have no time zone",
            "zone",
        ),
        ([click(1) | {"occurred_at": 1_768_435_200}], "occurred_at holds int64", "time: unix_s"),
    ],
)
def test_columns_that_no_contract_knows_are_told_before_anything_is_kept(
    rows: list[dict], said: str, remedy: str, tmp_path: Path, settings: Settings
) -> None:
    good = table_of([click(2)], tmp_path, "impressions.parquet")
    table_of(rows, tmp_path)
    with pytest.raises(CommandError, match=said) as error:
        bring_in(settings, "parquet", tmp_path)
    assert remedy in error.value.remedy
    assert good.exists()
    assert not settings.place.lake.exists()


def test_unknown_columns_can_be_left_out(tmp_path: Path, settings: Settings) -> None:
    path = table_of([click(1, other=1)], tmp_path)
    assert bring_in(settings, "parquet", path, ignore_unknown=True).new.total() == 1


def test_a_nan_and_a_null_id_are_refused_and_the_rest_comes_in(
    tmp_path: Path, settings: Settings
) -> None:
    rows = [click(1, dwell_s=float("nan")), click(2, dwell_s=1.0), click(3) | {"user_id": None}]
    outcome = bring_in(settings, "parquet", table_of(rows, tmp_path))
    assert outcome.new.total() == 1
    refused = [json.loads(line) for line in outcome.rejects.path.read_text().splitlines()]
    assert [(row["line"], row["reason"].split(":")[0]) for row in refused] == [
        (1, "dwell_s"),
        (3, "user_id"),
    ]


def test_parquet_that_was_cut_is_named_before_anything_is_kept(
    tmp_path: Path, settings: Settings
) -> None:
    path = table_of([click(n) for n in range(100)], tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CommandError, match=r"interactions.parquet is not readable Parquet"):
        bring_in(settings, "parquet", tmp_path)


def test_a_lake_that_was_removed_is_filled_again(tmp_path: Path, settings: Settings) -> None:
    path = table_of([click(n) for n in range(10)], tmp_path)
    bring_in(settings, "parquet", path)
    settings.place.lake.rename(tmp_path / "gone")
    assert bring_in(settings, "parquet", path).new.total() == 10


class Intake:
    """Answers as the intake does: full at first, and it refuses every third event."""

    def __init__(self) -> None:
        self.requests = 0
        self.events: list[dict] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests == 1:
            return httpx.Response(429, headers={"retry-after": "7"})
        batch = json.loads(request.content)["events"]
        EventBatch.model_validate_json(request.content)
        refused = [i for i, row in enumerate(batch) if int(row["event_id"][1:]) % 3 == 2]
        self.events += [row for i, row in enumerate(batch) if i not in refused]
        rejected = [{"index": i, "reason": "occurred_at: too old"} for i in refused]
        return httpx.Response(
            202, json={"accepted": len(batch) - len(refused), "rejected": rejected}
        )


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_go_through_the_intake_which_is_waited_for_and_has_the_last_word(
    form: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, waits = Intake(), []
    client = httpx.Client(transport=httpx.MockTransport(intake))
    monkeypatch.setattr(routes.httpx, "Client", lambda **_: client)
    monkeypatch.setattr(routes.time, "sleep", waits.append)
    rows = [click(n, event_type="impression" if n % 2 else "click") for n in range(1500)]
    if form == "jsonl":
        path = tmp_path / "events.jsonl"
        path.write_text("\n".join(json.dumps(r, default=datetime.isoformat) for r in rows))
    else:
        path = table_of([click(n, accepted_at=AT) for n in range(1500)], tmp_path)
    outcome = bring_in(settings, form, path, to="intake")
    assert waits == [7.0]
    assert outcome.new.total() == len(intake.events) == 1000
    assert outcome.rejects.count == 500
    assert outcome.rejects.first is not None
    assert outcome.rejects.first["reason"] == "occurred_at: too old"
    assert len({event["event_id"] for event in intake.events}) == 1000
    assert bring_in(settings, form, path, to="intake").new.total() == 0


@pytest.mark.parametrize("status", [408, 429, 503])
def test_an_intake_that_never_has_room_refuses_no_row_and_gets_each_when_it_has(
    status: int, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, client, waits = Intake(), httpx.Client, []
    is_full = True

    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(status, headers={"retry-after": "100"}) if is_full else intake(request)
        )

    def connect(**_: object) -> httpx.Client:
        return client(transport=httpx.MockTransport(answer))

    monkeypatch.setattr(routes.httpx, "Client", connect)
    monkeypatch.setattr(routes.time, "sleep", waits.append)
    path = tmp_path / "events.jsonl"
    rows = [click(n) for n in (0, 1, 3)]
    path.write_text("\n".join(json.dumps(row, default=datetime.isoformat) for row in rows))
    with pytest.raises(CommandError, match=f"answered {status}") as error:
        bring_in(settings, "jsonl", path, to="intake")
    assert "import again" in error.value.remedy
    assert sum(waits) == (0 if status == 408 else routes.IntakeRoute.PATIENCE_S)
    is_full = False
    outcome = bring_in(settings, "jsonl", path, to="intake")
    assert [event["event_id"] for event in intake.events] == ["e0", "e1", "e3"]
    assert (outcome.new.total(), outcome.rejects.count) == (3, 0)


def test_every_kind_of_line_goes_through_the_real_intake_to_its_topic(
    tmp_path: Path, intake: Service, bus_url: str
) -> None:
    item = {"item_id": "i", "item_type": "post", "creator_id": "c", "category": "news"}
    lines = [
        item | {"created_at": AT},
        {"user_id": "u", "country": "DE"},
        *(click(n, event_type="impression" if n % 2 else "click") for n in range(10)),
        click(10, dwell_s=-1.0),
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(json.dumps(row, default=datetime.isoformat) for row in lines))
    settings = Settings(home=tmp_path / "home", ingestion_port=int(intake.url.rpartition(":")[2]))
    outcome = bring_in(settings, "jsonl", path)
    assert dict(outcome.new) == {"items": 1, "users": 1, "impressions": 5, "interactions": 5}
    assert outcome.rejects.first is not None
    assert outcome.rejects.first["line"] == 13
    assert "dwell_s" in outcome.rejects.first["reason"]
    topics = [IMPRESSIONS, INTERACTIONS, ITEMS, USERS]
    bus = open_bus(bus_url)
    with bus.consumer(topics, group="test", member="m") as consumer:
        found: list[str] = []

        def all_came() -> bool:
            found.extend(r.topic for r in consumer.poll(max_records=100, timeout_s=0.5))
            return len(found) >= 12

        until(all_came)
    bus.close()
    assert sorted(found) == 5 * ["impressions"] + 5 * ["interactions"] + ["items", "users"]


def test_an_intake_that_is_down_is_told_and_the_import_goes_on_later(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "events.jsonl").write_text(json.dumps(click(1), default=datetime.isoformat))
    down = settings.model_copy(update={"ingestion_port": 9})
    with pytest.raises(CommandError, match="does not answer") as error:
        bring_in(down, "jsonl", tmp_path / "events.jsonl")
    assert "feedrank up" in error.value.remedy


def test_the_command_names_what_it_refused_and_fails_where_nothing_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDRANK_HOME", str(tmp_path / "home"))
    path = tmp_path / "events.jsonl"
    path.write_text('{"event_id": "a"\n')
    result = CliRunner().invoke(app, ["import", "jsonl", str(path), "--to", "lake"])
    assert result.exit_code == 1
    assert f"the first at {path}:1 (not JSON" in result.stdout
    shown = CliRunner().invoke(app, ["import", "--example-mapping"])
    assert shown.stdout == example_mapping()


def test_formats_are_files_and_unknown_ones_name_the_known(settings: Settings) -> None:
    assert set(discover()) == {"jsonl", "movielens", "parquet"}
    with pytest.raises(CommandError, match="no format 'xml'") as error:
        bring_in(settings, "xml", Path("x"))
    assert "movielens" in error.value.remedy
    with pytest.raises(CommandError, match="movielens goes to lake only"):
        bring_in(settings, "movielens", Path("x"), to="intake")


MEASURE = """
import resource, sys
from pathlib import Path
from feedrank_cli.import_command import bring_in
from feedrank_cli.settings import Settings
for path in sys.argv[3:]:
    bring_in(Settings(home=Path(sys.argv[1])), sys.argv[2], Path(path), to="lake")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_a_file_eight_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    def long_file(name: str, num: int) -> Path:
        numbers = pa.array(range(num)).cast(pa.string())
        at = pa.array([AT] * num, pa.timestamp("us", "UTC"))
        columns = {"event_id": numbers, "occurred_at": at}
        same = {"event_type": "click", "user_id": "u", "item_id": "i", "session_id": "s" * 100}
        columns |= {key: pa.array([value] * num) for key, value in same.items()}
        path = tmp_path / name / "interactions.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table(columns), path, row_group_size=num, use_dictionary=False)
        return path

    short, long = long_file("short", 500_000), long_file("long", 4_000_000)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "home"), "parquet"]
    done = subprocess.run([*command, short, long], check=True, capture_output=True, text=True)
    first_mb, second_mb = map(float, done.stdout.split())
    whole_mb = 4_000_000 * 150 / 1e6
    assert second_mb - first_mb < 0.25 * whole_mb
