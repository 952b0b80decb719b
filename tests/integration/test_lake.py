"""The lake: exactly once, by view, as of an instant, for two writers, on a full disk."""

from __future__ import annotations

import resource
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.items import Item, ItemType, withdrawal
from feedrank_core.contracts.schemas_dump import EXAMPLES, published
from feedrank_core.contracts.slates import Slate, SlateItem, Source
from feedrank_core.contracts.topics import TOPICS, Topic
from feedrank_core.contracts.users import User
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.lake_schema import (
    NOT_FROM_BUS,
    USER_KEYS,
    contract_schema,
    has_user,
    table_schema,
)
from feedrank_core.runtime.lake_views import EVENT_KEYS, VERSION_KEYS

IN_LAKE = [topic for topic in TOPICS.values() if topic.in_lake]
T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def interaction(n: int, *, user: str = "u1", at: datetime = T0, offset: int = -1) -> dict[str, Any]:
    event = Interaction(
        event_id=f"e{n}",
        user_id=user,
        item_id=f"i{n % 3}",
        event_type=InteractionType.CLICK,
        occurred_at=at,
        accepted_at=at,
    )
    return event.model_dump() | {"topic_partition": 0, "topic_offset": offset}


def item(item_id: str, at: datetime, *, category: str = "news") -> dict[str, Any]:
    return Item(
        item_id=item_id,
        item_type=ItemType.VIDEO,
        creator_id="c1",
        category=category,
        tags=("a", "b"),
        created_at=T0,
        text_vector=(0.5,) * 64,
        accepted_at=at,
    ).model_dump()


def count(lake: Lake, view: str, as_of: datetime | None = None) -> int:
    row = lake.connect(as_of).execute(f"SELECT count(*) FROM {view}").fetchone()
    assert row is not None
    return row[0]


def test_every_topic_has_a_table_schema() -> None:
    for topic in TOPICS:
        names = table_schema(topic).names
        assert "user_id" not in names
        assert {"date", "topic_partition", "topic_offset"} <= set(names)


def test_views_of_an_unwritten_lake_are_empty_and_typed(tmp_path: Path) -> None:
    con = Lake(tmp_path / "lake").connect()
    for view in ("impressions", "interactions", "slates", "items", "users"):
        table = con.execute(f"SELECT * FROM {view}").to_arrow_table()
        assert table.num_rows == 0
        expected = [n for n in table_schema(view).names if n != "date"]
        assert [("user_key" if n == "user_id" else n) for n in table.column_names] == expected
        accepted_at = table.schema.field("accepted_at").type
        assert (accepted_at.unit, accepted_at.tz) in {("us", "UTC"), ("us", "Etc/UTC")}


def test_a_row_comes_back_as_it_went_in(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("interactions", [interaction(1, user="zoë")])
    row = lake.connect().execute("SELECT user_id, event_id, accepted_at FROM interactions")
    assert row.fetchall() == [("zoë", "e1", T0)]


def test_a_slate_keeps_its_nested_parts_as_json(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    slate = Slate(
        request_id="r1",
        session_id="s1",
        user_id="u1",
        surface="home",  # pyright: ignore[reportArgumentType]
        served_at=T0,
        bundle=None,
        user_vector=(0.25,) * 64,
        items=(SlateItem(item_id="i1", position=0, source=Source.CACHED, scores={}, value=1.0),),
        accepted_at=T0,
    )
    lake.append("slates", [slate.model_dump()])
    sql = "SELECT items_json->>'$[0].item_id', len(user_vector), user_id FROM slates"
    assert lake.connect().execute(sql).fetchall() == [("i1", 64, "u1")]


def test_a_replay_adds_nothing_and_an_overlap_only_what_is_new(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = [interaction(n, offset=n) for n in range(10)]
    assert lake.append("interactions", rows[:6], positions={0: 6}) == 6
    assert lake.append("interactions", rows[:6], positions={0: 6}) == 0
    assert lake.append("interactions", rows, positions={0: 10}) == 4
    assert Lake(tmp_path).positions("interactions") == {0: 10}
    assert count(lake, "_interactions") == 10


def test_a_named_import_is_kept_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = [interaction(1)]
    assert lake.append("interactions", rows, app_id="import/x", offset=1) == 1
    assert lake.append("interactions", rows, app_id="import/x", offset=1) == 0
    assert lake.transaction_offset("interactions", "import/x") == 1


def test_two_sinks_of_one_partition_add_each_row_once(tmp_path: Path) -> None:
    first, second = Lake(tmp_path), Lake(tmp_path)
    rows = [interaction(n, offset=n) for n in range(4)]
    first.append("interactions", rows[:1], positions={0: 1})
    second.append("interactions", rows[:1], positions={0: 1})
    first.append("interactions", rows[:3], positions={0: 3})
    second.append("interactions", rows, positions={0: 4})
    assert count(first, "_interactions") == 4


def test_two_writers_never_give_one_user_two_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lake(tmp_path), Lake(tmp_path)
    first.append("interactions", [interaction(0, user="u0")])
    assign = first.keys._assign

    def beaten(ids: pa.Array, transaction: int) -> None:
        monkeypatch.setattr(first.keys, "_assign", assign)
        table = first.table("user_keys")
        second.append("interactions", [interaction(1, user="new")])
        monkeypatch.setattr(first.keys, "_open", lambda _: table)
        assign(ids, transaction)
        monkeypatch.undo()

    monkeypatch.setattr(first.keys, "_assign", beaten)
    first.append("interactions", [interaction(2, user="new"), interaction(3, user="other")])
    con = first.connect()
    ids = con.execute("SELECT user_id, count(*) FROM _user_keys GROUP BY 1 ORDER BY 1").fetchall()
    assert ids == [("new", 1), ("other", 1), ("u0", 1)]
    assert count(first, "interactions") == 4


def test_views_show_an_event_once_and_the_first_time(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    later = T0 + timedelta(hours=1)
    lake.append("interactions", [interaction(1, at=later), interaction(1), interaction(2)])
    rows = lake.connect().execute("SELECT event_id, accepted_at FROM interactions ORDER BY 1")
    assert rows.fetchall() == [("e1", T0), ("e2", T0)]


def test_as_of_hides_what_was_accepted_later(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    later = T0 + timedelta(days=1)
    lake.append("interactions", [interaction(1), interaction(2, at=later)])
    lake.append("items", [item("i1", T0), item("i1", later, category="sport")])
    assert count(lake, "interactions", T0) == 1
    assert count(lake, "interactions", later) == 2
    sql = "SELECT category, tags FROM items"
    assert lake.connect(T0).execute(sql).fetchall() == [("news", ["a", "b"])]
    assert lake.connect().execute(sql).fetchall() == [("sport", ["a", "b"])]
    with pytest.raises(ValueError, match="as_of"):
        lake.connect(datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_withdrawn_item_keeps_its_body_and_can_come_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("items", [item("i1", T0), withdrawal("i1", T0 + timedelta(1)).model_dump()])
    sql = "SELECT category, active FROM items"
    assert lake.connect().execute(sql).fetchall() == [("news", False)]
    assert lake.connect(T0).execute(sql).fetchall() == [("news", True)]
    lake.append("items", [item("i1", T0 + timedelta(2))])
    assert lake.connect().execute(sql).fetchall() == [("news", True)]


def test_users_are_seen_as_last_published(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    old = User(user_id="u1", country="DE", accepted_at=T0)
    new = User(user_id="u1", country="FR", accepted_at=T0 + timedelta(1))
    lake.append("users", [new.model_dump(), old.model_dump()])
    sql = "SELECT user_id, country FROM users"
    assert lake.connect().execute(sql).fetchall() == [("u1", "FR")]
    assert lake.connect(T0).execute(sql).fetchall() == [("u1", "DE")]


def test_a_table_is_appended_in_bulk(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    n = 50_000
    table = pa.table(
        {
            "event_id": [f"e{i}" for i in range(n)],
            "user_id": [f"u{i % 1000}" for i in range(n)],
            "item_id": [f"i{i % 700}" for i in range(n)],
            "event_type": ["click"] * n,
            "surface": ["home"] * n,
            "occurred_at": [T0] * n,
            "accepted_at": [T0] * n,
        }
    )
    assert lake.append("interactions", table) == n
    sql = "SELECT count(*), count(DISTINCT user_id), count(DISTINCT item_key) FROM interactions"
    assert lake.connect().execute(sql).fetchall() == [(n, 1000, 700)]


@pytest.mark.parametrize(
    ("column", "value"),
    [("accepted_at", None), ("user_id", None), ("item_id", None), ("position", "first")],
)
def test_a_column_that_does_not_fit_is_named(tmp_path: Path, column: str, value: object) -> None:
    with pytest.raises(ValueError, match=column):
        Lake(tmp_path).append("interactions", [interaction(1) | {column: value}])


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("interactions", [interaction(0, offset=0)], positions={0: 1})
    rows = [interaction(n, user=f"u{n}", offset=n) for n in range(1, 20_000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(LakeError, match="interactions cannot be written"):
            lake.append("interactions", rows, positions={0: 20_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert lake.positions("interactions") == {0: 1}
    assert count(lake, "interactions") == 1
    assert lake.append("interactions", rows, positions={0: 20_000}) == 19_999
    assert count(lake, "interactions") == 20_000


def test_compaction_joins_files_and_changes_no_row(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for n in range(5):
        lake.append("interactions", [interaction(n, offset=n)], positions={0: n + 1})
    assert lake.compact()["interactions"] == 5
    assert count(lake, "interactions") == 5
    assert lake.positions("interactions") == {0: 5}


def test_a_reader_that_began_before_a_compaction_reads_on_after_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for n in range(5):
        lake.append("interactions", [interaction(n, offset=n)], positions={0: n + 1})
    reader = lake.connect()
    files = {p.name for p in (tmp_path / "interactions").rglob("*.parquet")}
    assert lake.compact()["interactions"] == 5
    lake.append("interactions", [interaction(5, offset=5)], positions={0: 6})
    assert files < {p.name for p in (tmp_path / "interactions").rglob("*.parquet")}
    assert reader.execute("SELECT count(*) FROM interactions").fetchall() == [(5,)]
    assert count(lake, "interactions") == 6


def test_a_sink_that_began_before_a_compaction_appends_on_after_it(tmp_path: Path) -> None:
    sink = Lake(tmp_path)
    for n in range(5):
        sink.append("interactions", [interaction(n, offset=n)], positions={0: n + 1})
    Lake(tmp_path).compact()
    assert sink.append("interactions", [interaction(5, offset=5)], positions={0: 6}) == 1
    assert count(Lake(tmp_path), "interactions") == 6


def optional_columns(topic: Topic) -> list[str]:
    """What a message may leave out: what a new release may add to a table."""
    fields = topic.model.model_fields
    names = contract_schema(topic.name).names
    return [name for name in names if not fields[name.removesuffix("_json")].is_required()]


def fullest_example(topic: Topic) -> dict[str, Any]:
    [folder] = [name for name, model in published().items() if model is topic.model]
    texts = [path.read_bytes() for path in (EXAMPLES / folder).iterdir()]
    rows = [topic.model.model_validate_json(text).model_dump() for text in texts]
    return max(rows, key=lambda row: sum(value is not None for value in row.values()))


@pytest.mark.parametrize("topic", [*filter(optional_columns, IN_LAKE)], ids=lambda t: t.name)
def test_a_table_of_an_older_release_gains_its_new_columns_as_null(
    tmp_path: Path, topic: Topic
) -> None:
    columns, key = optional_columns(topic), (EVENT_KEYS | VERSION_KEYS)[topic.name]
    old, new = (fullest_example(topic) | {key: name} for name in ("old", "new"))
    lake, aged = Lake(tmp_path / "lake"), Lake(tmp_path / "aged")
    lake.append(topic.name, [old])
    held = DeltaTable(lake.root / topic.name).to_pyarrow_table().drop_columns(columns)
    write_deltalake(aged.root / topic.name, held, partition_by=["date"])
    if has_user(topic.name):
        keys = DeltaTable(lake.root / USER_KEYS).to_pyarrow_table()
        write_deltalake(aged.root / USER_KEYS, keys)
    lake.append(topic.name, [new])

    def found(where: Lake) -> dict[str, dict[str, Any]]:
        select = f"SELECT {key}, {', '.join(columns)} FROM {topic.name}"
        rows = where.connect().execute(select).to_arrow_table().to_pylist()
        return {row.pop(key): row for row in rows}

    nothing = dict.fromkeys(columns)
    assert found(aged) == {"old": nothing}
    [log] = aged.read(topic.name, starts={}, ends={NOT_FROM_BUS: 1})
    assert log.select(columns).to_pylist() == [nothing]
    aged.append(topic.name, [new])
    assert found(aged) == {"old": nothing, "new": found(lake)["new"]}
    assert found(lake)["new"] == found(lake)["old"] != nothing


def imported(n: int) -> dict[str, Any]:
    return interaction(n) | {"topic_partition": NOT_FROM_BUS}


def events_read(lake: Lake, starts: dict[int, int], ends: dict[int, int]) -> dict[int, str]:
    """By offset, the event; fails where two rows have one."""
    batches = lake.read("interactions", starts=starts, ends=ends)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len({row["topic_offset"] for row in rows}) == len(rows)
    return {row["topic_offset"]: row["event_id"] for row in rows}


def test_imported_rows_are_one_more_partition_with_running_offsets(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("interactions", [imported(n) for n in range(3)], app_id="import:a", offset=0)
    lake.append("interactions", [imported(n) for n in range(3)], app_id="import:a", offset=0)
    lake.append("interactions", [interaction(9, offset=0)], positions={0: 1})
    lake.append("interactions", [imported(n) for n in range(3, 5)], app_id="import:b", offset=0)
    assert lake.imported("interactions") == 5
    assert lake.positions("interactions") == {0: 1}
    assert events_read(lake, {}, {NOT_FROM_BUS: 5}) == {n: f"e{n}" for n in range(5)}
    assert events_read(lake, {NOT_FROM_BUS: 2}, {NOT_FROM_BUS: 4}) == {2: "e2", 3: "e3"}
    assert events_read(lake, {}, {0: 1}) == {0: "e9"}


def test_two_imports_at_once_share_no_offset(tmp_path: Path) -> None:
    first, second = Lake(tmp_path), Lake(tmp_path)
    for n in range(0, 8, 2):
        first.append("interactions", [imported(n)])
        second.append("interactions", [imported(n + 1)])
    assert len(events_read(first, {}, {NOT_FROM_BUS: 8})) == 8


def test_a_reader_of_the_log_sees_no_erased_user(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = [imported(n) | {"user_id": f"u{n}"} for n in range(2)]
    lake.append("interactions", rows)
    DeltaTable(tmp_path / USER_KEYS).delete("user_id = 'u0'")
    [batch] = lake.read("interactions", starts={}, ends={NOT_FROM_BUS: 2})
    assert batch.column("user_id").to_pylist() == ["u1"]


def test_views_can_be_cut_at_pinned_offsets(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("interactions", [interaction(n, offset=n) for n in range(4)], positions={0: 4})
    lake.append("interactions", [imported(n) for n in range(10, 13)])
    until = {"interactions": {0: 3, NOT_FROM_BUS: 1}}
    query = "SELECT event_id FROM interactions ORDER BY 1"
    with lake.connect(until=until) as connection:
        found = [row[0] for row in connection.execute(query).fetchall()]
    assert found == ["e0", "e1", "e10", "e2"]
