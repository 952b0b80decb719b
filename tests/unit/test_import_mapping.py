"""Mapping files: what each rule makes of a value, and what is said of one that is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from feedrank_cli.errors import CommandError
from feedrank_cli.import_command import example_mapping
from feedrank_cli.imports.mapping import Mapping, check_columns, load_mapping

SOURCE = {
    "action": "watched",
    "uid": 17.0,
    "item": {"id": 204},
    "watched_ms": 2500,
    "ts": 1_768_435_200_250,
    "loaded": "15.01.2026 01:00",
    "rank": None,
}


def write(folder: Path, content: object, name: str = "mapping.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def users(**rules: object) -> dict:
    fields = {"user_id": "uid", "accepted_at": {"value": "2026-01-01T00:00:00Z"}}
    return {"users": {"fields": fields | rules}}


@pytest.fixture
def example(tmp_path: Path) -> Mapping:
    return load_mapping(write(tmp_path, example_mapping(), "example.yaml"))


def test_the_example_that_the_help_prints_makes_a_row_of_every_rule(example: Mapping) -> None:
    assert example.takes("interactions", SOURCE)
    assert not example.takes("items", SOURCE)
    assert example.row("interactions", SOURCE, number=3, identity="ab12") == {
        "event_id": "shop-ab12-3",
        "user_id": "17",
        "item_id": "204",
        "event_type": "view",
        "dwell_s": 2.5,
        "occurred_at": datetime(2026, 1, 15, 0, 0, 0, 250_000, UTC),
        "accepted_at": datetime(2026, 1, 15, tzinfo=UTC),
        "surface": "home",
        "position": 0,
    }
    article = SOURCE | {"author": 5, "section": "chess", "keywords": "a,b,"}
    row = example.row("items", article, number=1, identity="x")
    assert row["category"] == "science"
    assert row["tags"] == ["a", "b"]
    assert row["creator_id"] == "5"


def test_yaml_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = '[users.fields]\nuser_id = "uid"\naccepted_at = {value = "2026-01-01T00:00:00Z"}\n'
    yaml = "users:\n  fields:\n    user_id: uid\n    accepted_at: {value: '2026-01-01T00:00:00Z'}\n"
    read = [
        load_mapping(write(tmp_path, content, f"m.{ending}"))
        for ending, content in (("toml", toml), ("yaml", yaml), ("json", users()))
    ]
    assert read[0] == read[1] == read[2]


@pytest.mark.parametrize(
    ("rule", "value", "meant"),
    [
        ({"time": "unix_s"}, 1_768_435_200, datetime(2026, 1, 15, tzinfo=UTC)),
        (
            {"time": "unix_s"},
            "1768435200.5",
            datetime(2026, 1, 15, microsecond=500_000, tzinfo=UTC),
        ),
        ({"time": "unix_us"}, 1_768_435_200_000_001, datetime(2026, 1, 15, 0, 0, 0, 1, UTC)),
        ({"time": "unix_ns"}, 1_768_435_200_000_001_999, datetime(2026, 1, 15, 0, 0, 0, 1, UTC)),
        ({}, "2026-01-15T01:00:00+01:00", datetime(2026, 1, 15, tzinfo=UTC)),
        ({"zone": "Europe/Berlin"}, "2026-07-15 02:00", datetime(2026, 7, 15, tzinfo=UTC)),
        ({"zone": "UTC"}, datetime(2026, 1, 15), datetime(2026, 1, 15, tzinfo=UTC)),  # noqa: DTZ001
        ({"zone": "UTC"}, datetime(2026, 1, 15).date(), datetime(2026, 1, 15, tzinfo=UTC)),  # noqa: DTZ001
    ],
)
def test_times_of_every_kind_become_instants(
    rule: dict, value: object, meant: datetime, tmp_path: Path
) -> None:
    mapping = load_mapping(write(tmp_path, users(accepted_at={"from": "at"} | rule)))
    assert (
        mapping.row("users", {"uid": 1, "at": value}, number=1, identity="")["accepted_at"] == meant
    )


@pytest.mark.parametrize(
    ("rules", "values", "said"),
    [
        (
            {"accepted_at": {"from": "at"}},
            {"uid": 1, "at": "2026-01-15 10:00"},
            r"accepted_at: 2026-01-15 10:00 has no time zone; give .* `zone` .*\(column at\)",
        ),
        ({"accepted_at": {"from": "at"}}, {"uid": 1, "at": 5}, "5 is no ISO 8601 time; .* `time`"),
        (
            {"accepted_at": {"from": "at", "time": "unix_s"}},
            {"uid": 1, "at": 1_768_435_200_000},
            "beyond the calendar",
        ),
        ({"accepted_at": {"from": "at"}}, {"uid": 1}, "accepted_at: the row has no 'at'"),
        ({}, {"uid": float("nan")}, "user_id: nan is no text"),
        (
            {"platform": {"from": "p", "values": {"a": "ios"}}},
            {"uid": 1, "p": "b"},
            "platform: 'b' is not under `values`.*otherwise",
        ),
    ],
)
def test_a_value_that_cannot_be_mapped_is_told_with_field_column_and_remedy(
    rules: dict, values: dict, said: str, tmp_path: Path
) -> None:
    mapping = load_mapping(write(tmp_path, users(**rules)))
    with pytest.raises(ValueError, match=said):
        mapping.row("users", values, number=1, identity="")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("users: [", "is no readable mapping"),
        ({}, "names no topic"),
        ({"readers": {}}, "there is no topic 'readers'"),
        ({"users": {}}, "users: has no `fields`"),
        ({"users": {"fields": {"user_id": "uid"}}}, "nothing says what accepted_at is"),
        (users(nation="c"), "there is no field 'nation'"),
        (users(country={"from": "c", "value": "DE"}), r"users.fields.country: needs exactly one"),
        (users(country={"form": "c"}), r"users.fields.country"),
        (users(accepted_at={"from": "at", "time": "unix"}), "`time` is one of iso, unix_s"),
        (users(accepted_at={"from": "at", "zone": "Berlin"}), "`zone` 'Berlin'"),
    ],
)
def test_a_wrong_mapping_is_told_before_a_row_is_read(
    content: object, said: str, tmp_path: Path
) -> None:
    name = "mapping.yaml" if isinstance(content, str) else "mapping.json"
    with pytest.raises(CommandError, match=said) as error:
        load_mapping(write(tmp_path, content, name))
    assert error.value.code == 2
    assert error.value.remedy


def test_a_column_that_a_file_lacks_is_told_with_the_field_and_the_nearest(
    tmp_path: Path,
) -> None:
    mapping = load_mapping(write(tmp_path, users()))
    check_columns(mapping, ["uid", "other"], tmp_path)
    with pytest.raises(CommandError, match=r"users.user_id reads column 'uid'.*mean 'uuid'"):
        check_columns(mapping, ["uuid", "at"], tmp_path)


def test_events_need_no_accepted_at_since_they_say_when_they_happened(tmp_path: Path) -> None:
    fields = {"event_id": "e", "user_id": "u", "item_id": "i", "occurred_at": "t"}
    load_mapping(write(tmp_path, {"impressions": {"fields": fields}}))
